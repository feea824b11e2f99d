"""On gaussian data, whose ideal denoiser and ODE solution are closed forms, samplers converge at their order.

For x0 ~ N(MEAN, STD²), a sample x = x0 + sigma * noise has E[noise | x] = sigma (x − MEAN) / (STD² + sigma²), and the
probability-flow ODE (Song et al. 2021, arXiv 2011.13456) keeps (x − MEAN) / sqrt(STD² + sigma²) constant.
"""

import numpy as np
import pytest

from mezzotint.engines.sampling import NUM_KEPT, SAMPLERS, Plan, advance, plan
from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing

MEAN, STD = 0.7, 0.6


def make_schedule() -> NoiseSchedule:
    return NoiseSchedule.from_betas(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction=Prediction.EPSILON,
        spacing=Spacing.TRAILING,
        steps_offset=0,
        set_alpha_to_one=True,
    )


def levels(ours: Plan, e: int) -> tuple[float, float]:
    """The factor that makes a sample variance-exploding, and its sigma there, read off the plan's own x0 row."""
    a, b = (float(value) for value in ours.denoised[e])  # x0 = a x + b noise, and x = (x0 − b noise) / a
    return a, -b


def walk(ours: Plan, unit_noise: np.ndarray, until: int) -> np.ndarray:
    """Return variance-exploding samples before evaluation ``until``, with the ideal denoiser as the model."""
    rng = np.random.default_rng(1)
    state = np.zeros((1, 1 + NUM_KEPT, *unit_noise.shape))
    state[:, 0] = unit_noise * ours.initial_scale
    for e in range(until):
        scale, sigma = levels(ours, e)
        output = sigma * (state[:, 0] * scale - MEAN) / (STD**2 + sigma**2)
        noise = rng.standard_normal(output.shape) if ours.needs_noise[e] else None
        state = advance(state, output, noise, ours.coefficients[e : e + 1])
    scale = levels(ours, until)[0] if until < ours.num_evaluations else 1.0
    return state[0, 0] * scale


def error(name: str, num_steps: int, sigmas: SigmaSpacing) -> float:
    """The largest distance from the ODE's solution at the last noise level above 0, relative to the data's spread."""
    ours = plan(SAMPLERS[name], make_schedule(), num_steps, sigmas=sigmas)
    unit_noise = np.linspace(-2, 2, 9).reshape(1, 3, 3)
    last = ours.num_evaluations - 1
    (scale, sigma), (_, sigma_last) = levels(ours, 0), levels(ours, last)
    start = unit_noise * ours.initial_scale * scale
    exact = MEAN + (start - MEAN) * np.sqrt((STD**2 + sigma_last**2) / (STD**2 + sigma**2))
    return float(np.abs(walk(ours, unit_noise, last) - exact).max() / STD)


@pytest.mark.parametrize(
    ("name", "sigmas", "order"),
    [
        ("ddim", SigmaSpacing.AS_TRAINED, 1),
        ("euler", SigmaSpacing.KARRAS, 1),
        ("heun", SigmaSpacing.KARRAS, 2),
        ("dpmpp_2m", SigmaSpacing.KARRAS, 2),
    ],
)
def test_deterministic_samplers_converge_to_the_odes_solution_at_their_order(
    name: str, sigmas: SigmaSpacing, order: int
) -> None:
    steps = np.array([10, 20, 40, 100])
    errors = np.array([error(name, num_steps, sigmas) for num_steps in steps.tolist()])
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert (np.diff(errors) < 0).all()
    assert order - 0.4 < slope < order + 0.7


@pytest.mark.parametrize(("name", "eta"), [("euler_a", 0.0), ("ddim", 1.0)])
def test_stochastic_samplers_end_in_the_datas_distribution(name: str, eta: float) -> None:
    ours = plan(SAMPLERS[name], make_schedule(), 500, eta=eta)
    unit_noise = np.random.default_rng(0).standard_normal((4, 64, 64))
    samples = walk(ours, unit_noise, ours.num_evaluations)
    assert samples.mean() == pytest.approx(MEAN, abs=0.02)
    assert samples.std() == pytest.approx(STD, rel=0.02)
