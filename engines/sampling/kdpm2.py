"""DPM-Solver-2: Lu et al. 2022 (arXiv 2206.00927), algorithm 1, as k-diffusion's ``sample_dpm_2`` and its ancestral.

A midpoint method: the slope in the middle of a step, on a log scale, is that of the whole step.
"""

import numpy as np

from mezzotint.engines.sampling.base import Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.euler import ancestral, last_euler
from mezzotint.engines.sampling.levels import exploding, exploding_levels, mean_level
from mezzotint.engines.schedule import SigmaSpacing


def to_middle_step(sigma: float, sigma_middle: float) -> Step:
    """An Euler step to the middle; keeps x, where the whole step begins."""

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x + at.eps * (sigma_middle - sigma), at.x

    return step


def whole_step(sigma: float, sigma_down: float, sigma_up: float = 0.0) -> Step:
    """From the kept x by the slope of the middle to ``sigma_down``, then noise of ``sigma_up``."""

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.kept[0] + at.eps * (sigma_down - sigma) + at.noise * sigma_up,)

    return step


def kdpm2(setup: Setup) -> Trajectory:
    """Two evaluations a step but for the last, which goes to sigma 0 by Euler's: 2N − 1."""
    return _walk(setup, is_ancestral=False)


def kdpm2_ancestral(setup: Setup) -> Trajectory:
    """Two evaluations a step to below the next level, whose noise then leads back up; the last step is Euler's."""
    return _walk(setup, is_ancestral=True)


def _walk(setup: Setup, *, is_ancestral: bool) -> Trajectory:
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    if setup.sigmas is SigmaSpacing.KARRAS and not setup.custom_sigmas:
        timesteps = np.round(timesteps).tolist()  # as diffusers, which leaves those in the middle as they are
    evaluations = []
    for i in range(setup.num_left - 1):
        here, there = sigmas[i], sigmas[i + 1]
        down, up = ancestral(here, there) if is_ancestral else (there, 0.0)
        middle = mean_level(here, down)
        between = float(setup.schedule.timesteps_at(np.array(middle)))
        evaluations.append(exploding(timesteps[i], here, to_middle_step(here, middle), i))
        evaluations.append(exploding(between, middle, whole_step(here, down, up), i + 1, draws=is_ancestral))
    evaluations.append(last_euler(setup, timesteps, sigmas))
    return Trajectory(initial_scale, evaluations)


KDPM2 = Sampler(
    name="kdpm2",
    label="DPM2",
    diffusers="KDPM2DiscreteScheduler",
    num_kept=1,
    trajectory=kdpm2,
    aliases=("dpm 2",),
    automatic=SigmaSpacing.KARRAS,
)
KDPM2_A = Sampler(
    name="kdpm2_a",
    label="DPM2 a",
    diffusers="KDPM2AncestralDiscreteScheduler",
    num_kept=1,
    trajectory=kdpm2_ancestral,
    aliases=("dpm 2 a", "dpm 2 ancestral", "kdpm2 ancestral"),
    automatic=SigmaSpacing.KARRAS,
)
