from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, advance, plan
from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing
from tests.fakes import fake_model

SCHEDULE = NoiseSchedule.from_betas(
    num_train_timesteps=1000,
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    prediction=Prediction.V,
    spacing=Spacing.LEADING,
    steps_offset=1,
    set_alpha_to_one=False,
)


@pytest.mark.parametrize("name", ["euler", "euler_a", "heun"])
def test_a_schedules_own_sigmas_given_by_hand_make_the_same_plan(name: str) -> None:
    sigmas = tuple(SCHEDULE.sigmas_at(SCHEDULE.timesteps(10, Spacing.LEADING)).tolist())
    ours = plan(SAMPLERS[name], SCHEDULE, 10)
    given = plan(SAMPLERS[name], SCHEDULE, 10, custom_sigmas=sigmas)
    assert given.coefficients == pytest.approx(ours.coefficients, abs=1e-5)
    assert given.timesteps == pytest.approx(ours.timesteps, abs=1e-3)


def test_dpmpp_2m_follows_custom_sigmas() -> None:
    given = plan(SAMPLERS["dpmpp_2m"], SCHEDULE, 4, custom_sigmas=(14.0, 4.0, 1.0, 0.2))
    assert given.num_evaluations == 4
    assert list(given.timesteps) == sorted(given.timesteps, reverse=True)


@pytest.mark.parametrize("num_steps", [1, 4, 16])
@pytest.mark.parametrize("name", [name for name, s in SAMPLERS.items() if SigmaSpacing.KARRAS in s.sigma_spacings])
def test_custom_sigmas_end_in_the_clean_sample(name: str, num_steps: int) -> None:
    sigmas = tuple(np.geomspace(14.0, 0.3, num_steps).tolist())
    given = plan(SAMPLERS[name], SCHEDULE, num_steps, custom_sigmas=sigmas)
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1, 4, 4, 4)).astype(np.float32)
    state = np.zeros((1, 1 + NUM_KEPT, 4, 4, 4), dtype=np.float32)
    state[:, 0] = rng.standard_normal(clean.shape) * given.initial_scale
    for e, (of_sample, of_output) in enumerate(given.denoised):
        output = (clean - of_sample * state[:, 0]) / of_output  # of a model that knows the clean sample
        noise = rng.standard_normal(clean.shape).astype(np.float32)
        state = advance(state, output, noise, given.coefficients[e : e + 1])
    np.testing.assert_allclose(state[:, 0], clean, atol=1e-4)


def test_ddim_refuses_custom_sigmas() -> None:
    with pytest.raises(InvalidRequest, match="ddim has none"):
        plan(SAMPLERS["ddim"], SCHEDULE, 2, custom_sigmas=(10.0, 1.0))


@pytest.mark.parametrize(
    "sigmas", [(9.0, 9.0), (1.0, 9.0), (9.0, 0.0), (9.0, float("nan")), (1000.0000000000002, 1000.0)]
)
def test_levels_that_do_not_fall_or_hardly_are_refused(tmp_path: Path, sigmas: tuple[float, ...]) -> None:
    model, _ = fake_model(tmp_path)
    with pytest.raises(InvalidRequest, match="each lower than the last by 1e-06 of it or more; leave out the last 0"):
        model.start(Request(prompt="a cat", sampler="dpmpp_2m", steps=2, custom_sigmas=sigmas))
