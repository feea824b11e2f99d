"""Plans say what their sampler's own function says, and ``advance`` never lets an image see its neighbours."""

from dataclasses import fields
from types import ModuleType

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, Plan, advance, plan
from mezzotint.engines.sampling.base import Setup, evaluate
from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing

LATENT = (4, 8, 8)


def make_schedule(prediction: Prediction = Prediction.V, *, zero_snr: bool = False) -> NoiseSchedule:
    return NoiseSchedule.from_betas(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction=prediction,
        spacing=Spacing.LEADING,
        steps_offset=1,
        set_alpha_to_one=False,
        rescale_betas_zero_snr=zero_snr,
    )


def make_plan(name: str, num_steps: int = 5) -> Plan:
    return plan(SAMPLERS[name], make_schedule(), num_steps, eta=0.5 if name == "ddim" else 0.0)


def normals(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_plan_applied_is_the_samplers_function_applied_to_arrays(name: str, prediction: Prediction) -> None:
    schedule, sampler = make_schedule(prediction), SAMPLERS[name]
    eta = 0.5 if sampler.takes_eta else 0.0
    ours = plan(sampler, schedule, 12, eta=eta)
    evaluations = sampler.trajectory(Setup(schedule, 12, schedule.spacing, SigmaSpacing.AS_TRAINED, eta)).evaluations
    x = normals(*LATENT).astype(np.float64) * ours.initial_scale
    kept = (np.zeros(LATENT),) * NUM_KEPT
    state = np.zeros((1, 1 + NUM_KEPT, *LATENT), dtype=np.float32)
    state[0, 0] = x
    for e, evaluation in enumerate(evaluations):
        output, noise = normals(*LATENT, seed=2 * e + 1), normals(*LATENT, seed=2 * e + 2)
        preview = ours.denoised[e, 0] * state[0, 0] + ours.denoised[e, 1] * output
        (x, *kept_now), x0 = evaluate(evaluation, prediction, x, kept, output.astype(np.float64), noise)
        kept = (*kept_now, *(np.zeros(LATENT),) * (NUM_KEPT - len(kept_now)))
        state = advance(state, output[None], noise[None], ours.coefficients[e : e + 1])
        np.testing.assert_allclose(state[0], np.stack([x, *kept]), rtol=1e-4, atol=1e-4 * np.abs(x).max())
        np.testing.assert_allclose(preview, x0, rtol=1e-4, atol=1e-4 * max(1.0, np.abs(x0).max()))


def count_evaluations(name: str, num_steps: int) -> int:
    if name in ("heun", "kdpm2", "kdpm2_a", "dpmpp_sde", "dpmpp_2s_a"):
        return 2 * num_steps - 1
    if name == "plms":
        return num_steps + (num_steps > 1)
    return num_steps + 9 if name == "pndm" else num_steps


@pytest.mark.parametrize("name", SAMPLERS)
def test_all_plans_have_one_shape_and_count_their_steps(name: str) -> None:
    for num_steps in (4, 7) if name == "pndm" else (1, 2, 7):
        ours = make_plan(name, num_steps)
        num_evaluations = count_evaluations(name, num_steps)
        assert ours.num_evaluations == num_evaluations
        assert ours.coefficients.shape == (num_evaluations, 1 + NUM_KEPT, 3 + NUM_KEPT)
        assert ours.denoised.shape == (num_evaluations, 2)
        for column in (ours.timesteps, ours.input_scales, ours.needs_noise, ours.steps):
            assert column.shape == (num_evaluations,)
        for column in (ours.timesteps, ours.input_scales, ours.coefficients, ours.denoised):
            assert column.dtype == np.float32
            assert np.isfinite(column).all()
        assert ours.steps[-1] == ours.num_steps == num_steps
        assert (np.diff(ours.steps) >= 0).all()
    if name == "heun":
        assert make_plan(name, 3).steps.tolist() == [0, 1, 1, 2, 3]


def test_only_stochastic_plans_need_noise() -> None:
    deterministic = {"euler", "heun", "kdpm2", "lms", "dpmpp_2m", "deis", "unipc", "unipc_bh1", "plms", "pndm", "tcd"}
    assert {name for name in SAMPLERS if not make_plan(name).needs_noise.any()} == deterministic
    assert not plan(SAMPLERS["ddim"], make_schedule(), 5).needs_noise.any()
    assert plan(SAMPLERS["tcd"], make_schedule(), 5, eta=0.3).needs_noise.tolist() == [True] * 4 + [False]
    assert make_plan("kdpm2_a", 3).needs_noise.tolist() == [False, True, False, True, False]
    assert make_plan("dpmpp_sde", 3).needs_noise.tolist() == [True] * 4 + [False]
    assert make_plan("euler_a").needs_noise.tolist() == [True] * 4 + [False]


def make_batch() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images of every sampler, at different steps of different plans, with signed zeros and subnormals in them."""
    names = [*SAMPLERS, "heun", "dpmpp_2m", "euler"]
    coefficients = np.stack([make_plan(name, 4 + i).coefficients[i % 4] for i, name in enumerate(names)])
    state, output, noise = (
        normals(len(names), 1 + NUM_KEPT, *LATENT),
        normals(len(names), *LATENT, seed=1),
        normals(len(names), *LATENT, seed=2),
    )
    state[:, :, 0, 0, :4] = output[:, 0, 0, :4][:, None] = [0.0, -0.0, 1e-45, -1e-45]
    return state, output, noise * coefficients[:, 0, -1, None, None, None].astype(bool), coefficients


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=lambda xp: xp.__name__)
def test_an_image_is_bit_equal_alone_and_beside_others(xp: ModuleType) -> None:
    state, output, noise, coefficients = make_batch()
    mixed = np.asarray(advance(xp.asarray(state), xp.asarray(output), xp.asarray(noise), coefficients))
    for i in range(len(state)):
        own = slice(i, i + 1)
        own_noise = xp.asarray(noise[own]) if coefficients[own, :, -1].any() else None
        alone = advance(xp.asarray(state[own]), xp.asarray(output[own]), own_noise, coefficients[own])
        assert np.asarray(alone)[0].tobytes() == mixed[i].tobytes()


def test_numpy_and_another_array_library_agree_bit_for_bit() -> None:
    state, output, noise, coefficients = make_batch()
    strict = [array_api_strict.asarray(array) for array in (state, output, noise)]
    assert np.asarray(advance(*strict, coefficients)).tobytes() == advance(state, output, noise, coefficients).tobytes()


def test_a_nan_stays_in_its_image() -> None:
    state, output, noise, coefficients = make_batch()
    output[2] = np.nan
    finite = np.isfinite(advance(state, output, noise, coefficients)).all(axis=(1, 2, 3, 4))
    assert finite.tolist() == [i != 2 for i in range(len(state))]


def test_the_state_stays_float32_and_its_inputs_unchanged() -> None:
    state, output, noise, coefficients = make_batch()
    before = [array.copy() for array in (state, output, noise)]
    assert advance(state, output, noise, coefficients).dtype == np.float32
    for array, copy in zip((state, output, noise), before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_an_entry_that_uses_noise_is_not_advanced_without() -> None:
    state, output, _, coefficients = make_batch()
    with pytest.raises(ValueError, match="noise is None"):
        advance(state, output, None, coefficients)


def test_a_plan_is_read_only_so_that_requests_can_share_it() -> None:
    ours = make_plan("euler_a")
    columns = {field.name: getattr(ours, field.name) for field in fields(ours)}
    arrays = {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}
    assert arrays.keys() == columns.keys() - {"num_steps", "initial_scale"}
    assert [name for name, array in arrays.items() if array.flags.writeable] == []


@pytest.mark.parametrize("num_steps", [0, -3, 1001])
def test_a_number_of_steps_out_of_range_is_refused(num_steps: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"steps={num_steps}: must be between 1 and 1000"):
        plan(SAMPLERS["euler"], make_schedule(), num_steps)


def test_ddim_has_no_karras_levels() -> None:
    with pytest.raises(InvalidRequest, match="sampler=ddim: has no karras noise levels"):
        plan(SAMPLERS["ddim"], make_schedule(), 10, sigmas=SigmaSpacing.KARRAS)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_eta_out_of_range_is_refused(eta: float) -> None:
    with pytest.raises(InvalidRequest, match="must be between 0 and 1"):
        plan(SAMPLERS["ddim"], make_schedule(), 10, eta=eta)


def test_eta_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(InvalidRequest, match=r"eta=0.5: sampler euler takes none"):
        plan(SAMPLERS["euler"], make_schedule(), 10, eta=0.5)


def test_steps_too_dense_for_a_multistep_sampler_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="meets one noise level twice"):
        plan(SAMPLERS["dpmpp_2m"], make_schedule(), 1000)


@pytest.mark.parametrize(
    ("name", "num_steps", "num_skipped"), [("dpmpp_2m", 1000, 1), ("lcm", 60, 20), ("pndm", 10, 7)]
)
def test_what_is_refused_of_steps_that_a_strength_leaves_names_both_numbers(
    name: str, num_steps: int, num_skipped: int
) -> None:
    left = num_steps - num_skipped
    with pytest.raises(InvalidRequest, match=rf"^the last {left} of {num_steps} steps, which the strength leaves: "):
        plan(SAMPLERS[name], make_schedule(), num_steps, num_skipped=num_skipped)


@pytest.mark.parametrize("sigmas", ["karras", "exponential", "beta"])
def test_one_step_of_deis_along_spread_levels_is_refused_since_it_stands_still(sigmas: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"steps=1: deis with {sigmas} noise levels stands still"):
        plan(SAMPLERS["deis"], make_schedule(), 1, sigmas=SigmaSpacing(sigmas))
    ours = plan(SAMPLERS["deis"], make_schedule(), 1)
    assert ours.coefficients[0, 0, 0] != 1


def test_an_epsilon_model_cannot_start_ddim_from_pure_noise() -> None:
    schedule = make_schedule(Prediction.EPSILON, zero_snr=True)
    with pytest.raises(InvalidRequest, match="predicts epsilon says nothing"):
        plan(SAMPLERS["ddim"], schedule, 10, spacing=Spacing.TRAILING)


@pytest.mark.parametrize("spacing", Spacing)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_number_of_steps_makes_a_finite_plan_or_is_refused(name: str, spacing: Spacing) -> None:
    for num_steps in (1, 2, 3, 61, 103, 333, 500, 501, 998, 999, 1000):
        try:
            ours = plan(SAMPLERS[name], make_schedule(), num_steps, spacing=spacing)
        except InvalidRequest as refusal:
            most = {"lcm": 50, "tcd": 50}.get(name, 998)
            few = "pndm takes at least 4" in str(refusal)
            assert num_steps > most or (few and num_steps < 4)
        else:
            assert np.isfinite(ours.coefficients).all()
