"""Samplers are found by our names, by diffusers' classes and by A1111's labels."""

import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling import SAMPLERS, get_sampler
from mezzotint.engines.schedule import SigmaSpacing


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
    ],
)
def test_a_sampler_is_found_by_any_of_its_names(name: str, expected: str) -> None:
    assert get_sampler(name) == (SAMPLERS[expected], SigmaSpacing.AS_TRAINED)


@pytest.mark.parametrize("name", ["DPM++ 2M Karras", "dpm++ 2m karras", "dpmpp_2m_karras"])
def test_a_name_that_ends_in_karras_asks_for_karras_levels(name: str) -> None:
    assert get_sampler(name) == (SAMPLERS["dpmpp_2m"], SigmaSpacing.KARRAS)


@pytest.mark.parametrize("name", ["", "karras", "plms", "euler b", "Euler a Karras Karras"])
def test_an_unknown_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidRequest, match="must be one of ddim, euler, euler_a, heun, dpmpp_2m"):
        get_sampler(name)


def test_no_two_samplers_share_a_name() -> None:
    names = [
        name.lower() for s in SAMPLERS.values() for name in {s.name, s.label.lower(), s.diffusers.lower(), *s.aliases}
    ]
    assert len(names) == len(set(names))
