"""Samplers that diffusers lacks, or has with another sign, walk by k-diffusion's formulas on gaussian data.

The formulas are written here as k-diffusion's functions have them, in (x, denoised) and its own sigmas.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from benchmarks.samplers import Run, denoiser, run_of, walk
from mezzotint.engines.sampling import SAMPLERS, plan
from mezzotint.engines.schedule import Prediction, SigmaSpacing
from tests.fake_manifest import SCHEDULE

Array = np.ndarray
Noise = Callable[[], Array]


def denoised(x: Array, sigma: float) -> Array:
    return x - sigma * denoiser(x, sigma)


def ancestral(sigma: float, there: float) -> tuple[float, float]:
    up = min(there, (there**2 * (sigma**2 - there**2) / sigma**2) ** 0.5)
    return (there**2 - up**2) ** 0.5, up


def dpmpp_2s_ancestral(x: Array, sigmas: Sequence[float], noise: Noise) -> Array:
    """sample_dpmpp_2s_ancestral of k-diffusion, eta 1."""
    for sigma, there in itertools.pairwise(sigmas):
        first = denoised(x, sigma)
        down, up = ancestral(sigma, there)
        if down == 0:
            x = x + (x - first) / sigma * (down - sigma)
            continue
        t, t_next = -math.log(sigma), -math.log(down)
        h = t_next - t
        s = t + h / 2
        x_2 = math.exp(-s) / math.exp(-t) * x - math.expm1(-h / 2) * first
        second = denoised(x_2, math.exp(-s))
        x = math.exp(-t_next) / math.exp(-t) * x - math.expm1(-h) * second + noise() * up
    return x


def dpmpp_3m_sde(x: Array, sigmas: Sequence[float], noise: Noise) -> Array:
    """sample_dpmpp_3m_sde of k-diffusion, eta 1, but for its second step, where diffusers' midpoint form is ours."""
    known: list[Array] = []
    steps: list[float] = []
    for sigma, there in itertools.pairwise(sigmas):
        now = denoised(x, sigma)
        if there == 0:
            return now
        h = math.log(sigma / there)
        h_eta = 2 * h
        x = math.exp(-h_eta) * x - math.expm1(-h_eta) * now
        if len(known) == 1:
            x = x - 0.5 * math.expm1(-h_eta) * (now - known[-1]) * h / steps[-1]
        elif len(known) > 1:
            r0, r1 = steps[-1] / h, steps[-2] / h
            d1_0, d1_1 = (now - known[-1]) / r0, (known[-1] - known[-2]) / r1
            d1 = d1_0 + (d1_0 - d1_1) * r0 / (r0 + r1)
            d2 = (d1_0 - d1_1) / (r0 + r1)
            phi_2 = math.expm1(-h_eta) / h_eta + 1
            phi_3 = phi_2 / h_eta - 0.5
            x = x + phi_2 * d1 - phi_3 * d2
        x = x + noise() * there * math.sqrt(-math.expm1(-2 * h))
        known.append(now)
        steps.append(h)
    return x


@pytest.mark.parametrize("prediction", Prediction)
@pytest.mark.parametrize("num_steps", [4, 10, 25, 50])
def test_dpmpp_2s_ancestral_is_k_diffusions(num_steps: int, prediction: Prediction) -> None:
    run = run_of("dpmpp_2s_a", num_steps, prediction=prediction)
    sigmas = [*(sigma for _, sigma in run.levels[::2]), 0.0]
    assert_same(run, dpmpp_2s_ancestral, sigmas)


@pytest.mark.parametrize("num_steps", [25, 50])  # below 15 steps diffusers' lower order at the end is ours
def test_dpmpp_3m_sde_is_k_diffusions(num_steps: int) -> None:
    run = run_of("dpmpp_3m_sde", num_steps)
    assert_same(run, dpmpp_3m_sde, [*(sigma for _, sigma in run.levels), 0.0])


def assert_same(run: Run, theirs: Callable[[Array, Sequence[float], Noise], Array], sigmas: list[float]) -> None:
    unit_noise = np.linspace(-2, 2, 36).reshape(4, 3, 3)
    start = walk(run, unit_noise, 0)
    rng = np.random.default_rng(1)  # as in walk
    expected = theirs(start, sigmas, lambda: rng.standard_normal((1, *unit_noise.shape))[0])
    ours = walk(run, unit_noise, run.plan.num_evaluations)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("sigmas", SAMPLERS["dpmpp_2s_a"].sigma_spacings)
def test_dpmpp_2s_ancestral_passes_through_the_levels_of_eulers(sigmas: SigmaSpacing) -> None:
    schedule = SCHEDULE.noise_schedule()
    ours = plan(SAMPLERS["dpmpp_2s_a"], schedule, 10, sigmas=sigmas)
    eulers = plan(SAMPLERS["euler"], schedule, 10, sigmas=sigmas)
    np.testing.assert_array_equal(ours.timesteps[::2], eulers.timesteps)
    np.testing.assert_array_equal(ours.input_scales[::2], eulers.input_scales)
    assert ours.initial_scale == eulers.initial_scale
