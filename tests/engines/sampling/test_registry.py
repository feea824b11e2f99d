"""Samplers are found by our names, by diffusers' classes and by A1111's labels."""

import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling import SAMPLERS, get_sampler, plan, sampler_of_class
from mezzotint.engines.schedule import SigmaSpacing
from tests.fake_manifest import SCHEDULE


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ddim", "ddim"),
        ("DDIM", "ddim"),
        ("DDIMScheduler", "ddim"),
        ("Euler", "euler"),
        ("EulerDiscreteScheduler", "euler"),
        ("Euler a", "euler_a"),
        ("euler_a", "euler_a"),
        ("euler_ancestral", "euler_a"),
        ("EulerAncestralDiscreteScheduler", "euler_a"),
        ("Heun", "heun"),
        ("HeunDiscreteScheduler", "heun"),
        ("DPM++ 2M", "dpmpp_2m"),
        ("dpm++ 2m", "dpmpp_2m"),
        ("dpmpp_2m", "dpmpp_2m"),
        ("DPMSolverMultistepScheduler", "dpmpp_2m"),
        ("sample_dpmpp_2m", "dpmpp_2m"),
        ("k_dpmpp_2m", "dpmpp_2m"),
        ("DPM++ 2M SDE", "dpmpp_2m_sde"),
        ("sample_dpmpp_2m_sde", "dpmpp_2m_sde"),
        ("DPM++ 3M SDE", "dpmpp_3m_sde"),
        ("sample_dpmpp_3m_sde", "dpmpp_3m_sde"),
        ("DPM++ SDE", "dpmpp_sde"),
        ("DPMSolverSDEScheduler", "dpmpp_sde"),
        ("sample_dpmpp_sde", "dpmpp_sde"),
        ("DPM++ 2S a", "dpmpp_2s_a"),
        ("sample_dpmpp_2s_ancestral", "dpmpp_2s_a"),
        ("sample_euler_ancestral", "euler_a"),
        ("sample_heun", "heun"),
        ("DPM2", "kdpm2"),
        ("KDPM2DiscreteScheduler", "kdpm2"),
        ("sample_dpm_2", "kdpm2"),
        ("DPM2 a", "kdpm2_a"),
        ("sample_dpm_2_ancestral", "kdpm2_a"),
        ("KDPM2AncestralDiscreteScheduler", "kdpm2_a"),
        ("LMS", "lms"),
        ("sample_lms", "lms"),
        ("LMSDiscreteScheduler", "lms"),
        ("UniPC", "unipc"),
        ("UniPCMultistepScheduler", "unipc"),
        ("uni_pc_bh2", "unipc"),
        ("uni_pc", "unipc_bh1"),
        ("DEISMultistepScheduler", "deis"),
        ("DDPMScheduler", "ddpm"),
        ("PLMS", "plms"),
        ("PNDMScheduler", "plms"),
        ("pndm", "pndm"),
        ("LCM", "lcm"),
        ("LCMScheduler", "lcm"),
        ("TCDScheduler", "tcd"),
    ],
)
def test_a_sampler_is_found_by_any_of_its_names(name: str, expected: str) -> None:
    assert get_sampler(name) == (SAMPLERS[expected], SigmaSpacing.AS_TRAINED)


@pytest.mark.parametrize("name", ["DPM++ 2M Karras", "dpm++ 2m karras", "dpmpp_2m_karras"])
def test_a_name_that_ends_in_karras_asks_for_karras_levels(name: str) -> None:
    assert get_sampler(name) == (SAMPLERS["dpmpp_2m"], SigmaSpacing.KARRAS)


@pytest.mark.parametrize(
    ("name", "expected", "sigmas"),
    [
        ("DPM++ 2M SDE Exponential", "dpmpp_2m_sde", SigmaSpacing.EXPONENTIAL),
        ("k_dpmpp_3m_sde_exp", "dpmpp_3m_sde", SigmaSpacing.EXPONENTIAL),
        ("k_dpm_2_a_ka", "kdpm2_a", SigmaSpacing.KARRAS),
        ("Euler Beta", "euler", SigmaSpacing.BETA),
        ("DPM++ 2M Automatic", "dpmpp_2m", SigmaSpacing.KARRAS),
        ("DPM++ 2M SDE Automatic", "dpmpp_2m_sde", SigmaSpacing.EXPONENTIAL),
        ("Euler a Automatic", "euler_a", SigmaSpacing.AS_TRAINED),
    ],
)
def test_a_name_may_end_in_the_noise_levels_that_it_asks_for(name: str, expected: str, sigmas: SigmaSpacing) -> None:
    assert get_sampler(name) == (SAMPLERS[expected], sigmas)


@pytest.mark.parametrize(
    ("name", "asked", "sigmas"),
    [
        ("DPM++ 2M Karras", "default", SigmaSpacing.AS_TRAINED),
        ("DPM++ 2M Karras", "beta", SigmaSpacing.BETA),
        ("DPM++ 2M SDE", "automatic", SigmaSpacing.EXPONENTIAL),
    ],
)
def test_levels_that_are_asked_for_go_before_those_of_the_name(name: str, asked: str, sigmas: SigmaSpacing) -> None:
    assert get_sampler(name, asked)[1] is sigmas


def test_unknown_levels_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="must be one of default, karras, exponential, beta, automatic, or empty"):
        get_sampler("euler", "align")


def test_automatic_levels_are_those_that_a1111_chooses_for_the_sampler() -> None:
    schedule = SCHEDULE.noise_schedule()
    for name, sigmas in (("dpmpp_2m", SigmaSpacing.KARRAS), ("euler", SigmaSpacing.AS_TRAINED)):
        chosen = plan(SAMPLERS[name], schedule, 5, sigmas=SigmaSpacing.AUTOMATIC)
        assert (chosen.coefficients == plan(SAMPLERS[name], schedule, 5, sigmas=sigmas).coefficients).all()


@pytest.mark.parametrize("name", ["", "karras", "dpm", "euler b", "Euler a Karras Karras"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one of ddim, euler, euler_a, heun, dpmpp_2m"):
        get_sampler(name)


def test_no_two_samplers_share_a_name() -> None:
    names = [
        name
        for s in SAMPLERS.values()
        for name in {spoken.lower().replace("_", " ") for spoken in (s.name, s.label, *s.aliases)}
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "dpmpp_2m"),
        ({"algorithm_type": "dpmsolver++", "solver_order": 2}, "dpmpp_2m"),
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 2}, "dpmpp_2m_sde"),
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "dpmpp_3m_sde"),
    ],
)
def test_a_class_with_settings_is_the_sampler_that_says_most_about_them(
    settings: dict[str, object], expected: str
) -> None:
    assert sampler_of_class("DPMSolverMultistepScheduler", settings) is SAMPLERS[expected]


def test_a_class_that_is_not_served_is_no_sampler() -> None:
    assert sampler_of_class("EDMEulerScheduler", {}) is None
