"""DPM-Solver++(2M): Lu et al. 2022, "Fast Solver for Guided Sampling" (arXiv 2211.01095)."""

import math

from mezzotint.engines.sampling.base import Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import log_snr, multistep_levels, preserving
from mezzotint.engines.schedule import SigmaSpacing


def dpmpp_1_step(here: float, there: float) -> Step:
    """First order, which is DDIM, from sigma over alpha ``here`` to ``there``; keeps x0."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    h = log_snr(there) - log_snr(here)

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x * (then.sigma / now.sigma) - at.x0 * (then.alpha * math.expm1(-h)), at.x0

    return step


def dpmpp_2m_step(before: float, here: float, there: float) -> Step:
    """Algorithm 2, DPM-Solver++(2M): extrapolates x0 from the one kept at ``before``; keeps x0."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    h = log_snr(there) - log_snr(here)
    r = (log_snr(here) - log_snr(before)) / h

    def step(at: Values[V]) -> tuple[V, ...]:
        d = at.x0 * (1 + 1 / (2 * r)) - at.kept[0] * (1 / (2 * r))
        return at.x * (then.sigma / now.sigma) - d * (then.alpha * math.expm1(-h)), at.x0

    return step


def dpmpp_2m(setup: Setup) -> Trajectory:
    """Second order but for the first step, which has no history, and the last, which goes to sigma 0."""
    timesteps, sigmas = multistep_levels(setup, "dpmpp_2m")
    sigmas = [*sigmas, 0.0]
    evaluations = []
    for i, timestep in enumerate(timesteps):
        if i in (0, setup.num_left - 1):
            step = dpmpp_1_step(sigmas[i], sigmas[i + 1])
        else:
            step = dpmpp_2m_step(sigmas[i - 1], sigmas[i], sigmas[i + 1])
        evaluations.append(preserving(timestep, sigmas[i], step, i + 1))
    return Trajectory(1.0, evaluations)


DPMPP_2M = Sampler(
    name="dpmpp_2m",
    label="DPM++ 2M",
    diffusers="DPMSolverMultistepScheduler",
    num_kept=1,
    trajectory=dpmpp_2m,
    automatic=SigmaSpacing.KARRAS,
)
