"""DPM-Solver++ with two evaluations a step and noise, as k-diffusion's ``sample_dpmpp_2s_ancestral`` and ``_sde``.

Both are DPM-Solver++(2S) of Lu et al. 2022 (arXiv 2211.01095), algorithm 1, with r = 1/2, between ancestral levels.
"""

import math

import numpy as np

from mezzotint.engines.sampling.base import Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.euler import ancestral, last_euler
from mezzotint.engines.sampling.kdpm2 import to_middle_step
from mezzotint.engines.sampling.levels import exploding, exploding_levels, mean_level
from mezzotint.engines.schedule import SigmaSpacing


def dpmpp_2s_step(sigma: float, sigma_down: float, sigma_up: float) -> Step:
    """From the kept x to ``sigma_down`` by the x0 of the middle, then noise of ``sigma_up``."""
    ratio = sigma_down / sigma

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.kept[0] * ratio + at.x0 * (1 - ratio) + at.noise * sigma_up,)

    return step


def noisy_middle_step(sigma: float, sigma_middle: float) -> Step:
    """An ancestral step to the middle; keeps x and the noise that led there."""
    down, up = ancestral(sigma, sigma_middle)

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x + at.eps * (down - sigma) + at.noise * up, at.x, at.noise

    return step


def dpmpp_sde_step(sigma: float, sigma_middle: float, sigma_next: float) -> Step:
    """From the kept x by the x0 of the middle; the noise goes on along the Brownian path in sigma that led there.

    W(next) − W(now) is (W(middle) − W(now)) + (W(next) − W(middle)): what came with the kept noise, and fresh noise for
    the other part, each with the square root of its length. That is k-diffusion's ``BrownianTreeNoiseSampler``.
    """
    down, up = ancestral(sigma, sigma_next)
    ratio = down / sigma
    share = (sigma - sigma_middle) / (sigma - sigma_next) if sigma > sigma_next else 1.0

    def step(at: Values[V]) -> tuple[V, ...]:
        noise = at.kept[1] * math.sqrt(share) + at.noise * math.sqrt(1 - share)
        return (at.kept[0] * ratio + at.x0 * (1 - ratio) + noise * up,)

    return step


def dpmpp_2s_ancestral(setup: Setup) -> Trajectory:
    """Two evaluations a step to below the next level, whose noise then leads back up; the last step is Euler's."""
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    evaluations = []
    for i in range(setup.num_left - 1):
        here, there = sigmas[i], sigmas[i + 1]
        down, up = ancestral(here, there)
        middle = mean_level(here, down)
        between = float(setup.schedule.timesteps_at(np.array(middle)))
        evaluations.append(exploding(timesteps[i], here, to_middle_step(here, middle), i))
        evaluations.append(exploding(between, middle, dpmpp_2s_step(here, down, up), i + 1, draws=True))
    evaluations.append(last_euler(setup, timesteps, sigmas))
    return Trajectory(initial_scale, evaluations)


def dpmpp_sde(setup: Setup) -> Trajectory:
    """Two evaluations a step, each with noise of its own; the last step is Euler's."""
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    evaluations = []
    for i in range(setup.num_left - 1):
        here, there = sigmas[i], sigmas[i + 1]
        middle = mean_level(here, there)
        between = float(setup.schedule.timesteps_at(np.array(middle)))
        evaluations.append(exploding(timesteps[i], here, noisy_middle_step(here, middle), i, draws=True))
        evaluations.append(exploding(between, middle, dpmpp_sde_step(here, middle, there), i + 1, draws=True))
    evaluations.append(last_euler(setup, timesteps, sigmas))
    return Trajectory(initial_scale, evaluations)


DPMPP_2S_A = Sampler(
    name="dpmpp_2s_a",
    label="DPM++ 2S a",
    diffusers="",
    num_kept=1,
    trajectory=dpmpp_2s_ancestral,
    aliases=("dpmpp 2s ancestral",),
    automatic=SigmaSpacing.KARRAS,
)
DPMPP_SDE = Sampler(
    name="dpmpp_sde",
    label="DPM++ SDE",
    diffusers="DPMSolverSDEScheduler",
    num_kept=2,
    trajectory=dpmpp_sde,
    automatic=SigmaSpacing.KARRAS,
)
