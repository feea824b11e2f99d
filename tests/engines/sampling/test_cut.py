"""A run that begins in the middle: what a strength leaves, and what clean latents become there.

That the walk from there is diffusers' is shown in ``test_diffusers.py``.
"""

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling import SAMPLERS, noised, plan, skipped_steps
from mezzotint.engines.schedule import NoiseSchedule, Prediction, Spacing

SCHEDULE = NoiseSchedule.from_betas(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction=Prediction.EPSILON,
    spacing=Spacing.LEADING,
    steps_offset=1,
    set_alpha_to_one=False,
)


@pytest.mark.parametrize(
    ("num_steps", "strength", "skipped"), [(25, 0.8, 5), (10, 0.3, 7), (100, 0.29, 72), (7, 1.0, 0), (4, 0.25, 3)]
)
def test_a_strength_skips_the_steps_that_diffusers_skips(num_steps: int, strength: float, skipped: int) -> None:
    assert skipped_steps(num_steps, strength) == skipped


@pytest.mark.parametrize("strength", [-0.1, 1.01, float("nan")])
def test_a_strength_is_a_share(strength: float) -> None:
    with pytest.raises(InvalidRequest, match="must be between 0 and 1"):
        skipped_steps(10, strength)


@pytest.mark.parametrize(("num_steps", "strength"), [(10, 0.09), (3, 0.3), (30, 0.0)])
def test_a_strength_that_leaves_no_step_is_told_what_would_leave_one(num_steps: int, strength: float) -> None:
    with pytest.raises(InvalidRequest, match=rf"leaves none of {num_steps} steps; use (0\.\d+)") as refused:
        skipped_steps(num_steps, strength)
    least = float(str(refused.value).split("use ")[1].split(" ")[0])
    assert skipped_steps(num_steps, least) == num_steps - 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_cut_plan_counts_its_own_steps_and_looks_at_nothing_before_them(name: str) -> None:
    whole, cut = (plan(SAMPLERS[name], SCHEDULE, 12, num_skipped=skipped) for skipped in (0, 5))
    assert cut.num_steps == 7
    assert cut.steps[-1] == 7
    assert cut.num_evaluations <= whole.num_evaluations - 5
    assert cut.timesteps[0] in whole.timesteps
    assert not cut.coefficients[0, 0, 1:-2].any()


@pytest.mark.parametrize("name", SAMPLERS)
def test_noised_latents_are_the_clean_ones_at_the_end_and_have_the_sampler_s_noise_before(name: str) -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    cut = plan(SAMPLERS[name], SCHEDULE, 12, num_skipped=5)
    for evaluation in range(cut.num_evaluations):
        seen = noised(clean, noise, cut, evaluation) * cut.input_scales[evaluation]
        alpha = SCHEDULE.alphas_cumprod[int(cut.timesteps[evaluation])]
        np.testing.assert_allclose(seen, clean * alpha**0.5 + noise * (1 - alpha) ** 0.5, atol=2e-2)
    assert np.array_equal(noised(clean, noise, cut, cut.num_evaluations), clean)


def test_latents_are_noised_where_they_are() -> None:
    rng = np.random.default_rng(0)
    clean, noise = rng.standard_normal((2, 4, 8, 8)).astype(np.float32)
    cut = plan(SAMPLERS["dpmpp_2m"], SCHEDULE, 12, num_skipped=5)
    there = noised(array_api_strict.asarray(clean), array_api_strict.asarray(noise), cut)
    assert np.array_equal(np.from_dlpack(there), noised(clean, noise, cut))
