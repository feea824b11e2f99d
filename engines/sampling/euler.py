"""Euler's method and its ancestral form: Karras et al. 2022, "Elucidating the Design Space" (arXiv 2206.00364)."""

import itertools
import math
from collections.abc import Callable, Sequence

from mezzotint.engines.sampling.base import Evaluation, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import exploding, exploding_levels


def euler_step(sigma: float, sigma_next: float) -> Step:
    """Algorithm 1 without its second-order correction; the slope (x − x0) / sigma is the predicted noise."""

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.x + at.eps * (sigma_next - sigma),)

    return step


def ancestral(sigma: float, sigma_next: float) -> tuple[float, float]:
    """Return k-diffusion's (sigma_down, sigma_up): where to step, and the noise that leads up to ``sigma_next``."""
    sigma_up = sigma_next * math.sqrt(max(sigma**2 - sigma_next**2, 0.0)) / sigma
    return sigma_next**2 / sigma, sigma_up  # sigma_down = sqrt(sigma_next² − sigma_up²)


def euler_ancestral_step(sigma: float, sigma_next: float) -> Step:
    """k-diffusion's ``sample_euler_ancestral``: an Euler step to below ``sigma_next``, then noise back up to it."""
    sigma_down, sigma_up = ancestral(sigma, sigma_next)

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.x + at.eps * (sigma_down - sigma) + at.noise * sigma_up,)

    return step


def last_euler(setup: Setup, timesteps: Sequence[float], sigmas: Sequence[float]) -> Evaluation:
    """Return the last step of samplers that evaluate twice a step: Euler's to sigma 0, where no second one can be made.

    ``sigmas`` end in 0, as ``exploding_levels`` returns them.
    """
    return exploding(timesteps[-1], sigmas[-2], euler_step(sigmas[-2], sigmas[-1]), setup.num_left)


def euler(setup: Setup) -> Trajectory:
    """Euler's method from one noise level to the next."""
    return _walk(setup, euler_step, draws=False)


def euler_ancestral(setup: Setup) -> Trajectory:
    """Ancestral steps from one noise level to the next; the last one, to sigma 0, adds no noise.

    diffusers has trained levels alone for it; here they are those of Euler, as in k-diffusion.
    """
    return _walk(setup, euler_ancestral_step, draws=True)


def _walk(setup: Setup, make_step: Callable[[float, float], Step], *, draws: bool) -> Trajectory:
    timesteps, sigmas, initial_scale = exploding_levels(setup)
    levels = zip(timesteps, itertools.pairwise(sigmas), strict=True)
    return Trajectory(
        initial_scale,
        [
            exploding(timestep, here, make_step(here, there), i + 1, draws=draws)
            for i, (timestep, (here, there)) in enumerate(levels)
        ],
    )


EULER = Sampler(name="euler", label="Euler", diffusers="EulerDiscreteScheduler", num_kept=0, trajectory=euler)
EULER_A = Sampler(
    name="euler_a",
    label="Euler a",
    diffusers="EulerAncestralDiscreteScheduler",
    num_kept=0,
    trajectory=euler_ancestral,
    aliases=("euler ancestral",),
)
