"""DPM-Solver++: Lu et al. 2022, "Fast Solver for Guided Sampling" (arXiv 2211.01095)."""

import itertools
import math

import numpy as np

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Evaluation, Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.schedule import SigmaSpacing, Spacing, karras_sigmas


def dpmpp_1_step(here: float, there: float) -> Step:
    """First order, which is DDIM, from sigma over alpha ``here`` to ``there``; keeps x0."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    h = _log_snr(there) - _log_snr(here)

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x * (then.sigma / now.sigma) - at.x0 * (then.alpha * math.expm1(-h)), at.x0

    return step


def dpmpp_2m_step(before: float, here: float, there: float) -> Step:
    """Algorithm 2, DPM-Solver++(2M): extrapolates x0 from the one kept at ``before``; keeps x0."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    h = _log_snr(there) - _log_snr(here)
    r = (_log_snr(here) - _log_snr(before)) / h

    def step(at: Values[V]) -> tuple[V, ...]:
        d = at.x0 * (1 + 1 / (2 * r)) - at.kept[0] * (1 / (2 * r))
        return at.x * (then.sigma / now.sigma) - d * (then.alpha * math.expm1(-h)), at.x0

    return step


def dpmpp_2m(setup: Setup) -> Trajectory:
    """Second order but for the first step, which has no history, and the last, which goes to sigma 0.

    Deviates from diffusers with Karras levels on a cosine schedule alone: it truncates timesteps there, here they are
    rounded as everywhere.

    Raises:
        InvalidRequest: two steps would share a noise level, so that the extrapolation has no answer.
    """
    timesteps, sigmas = _levels(setup)
    if any(there >= here for here, there in itertools.pairwise(sigmas)):
        raise InvalidRequest(
            f"steps={setup.num_steps}: dpmpp_2m with {setup.spacing.value} spacing meets one noise level twice; "
            "use fewer steps or euler"
        )
    evaluations = []
    for i, timestep in enumerate(timesteps):
        if i in (0, setup.num_steps - 1):
            step = dpmpp_1_step(sigmas[i], sigmas[i + 1])
        else:
            step = dpmpp_2m_step(sigmas[i - 1], sigmas[i], sigmas[i + 1])
        evaluations.append(Evaluation(timestep, Level.of_ratio(sigmas[i]), 1.0, step, i + 1))
    return Trajectory(1.0, evaluations)


def _levels(setup: Setup) -> tuple[list[float], list[float]]:
    """Return N whole timesteps and N + 1 sigmas that end in 0; the step to 0 counts as one where spacing divides."""
    schedule, num_steps = setup.schedule, setup.num_steps
    if setup.custom_sigmas:
        sigmas = np.array(setup.custom_sigmas)
        timesteps = np.round(schedule.timesteps_at(sigmas))
    elif setup.sigmas is SigmaSpacing.KARRAS:
        trained = schedule.sigmas
        sigmas = karras_sigmas(float(trained[0]), float(trained[-1]), num_steps)
        timesteps = np.round(schedule.timesteps_at(sigmas))
    else:
        num_intervals = num_steps if setup.spacing is Spacing.TRAILING else num_steps + 1
        timesteps = np.round(schedule.timesteps(num_intervals, setup.spacing))[:num_steps]
        sigmas = schedule.sigmas_at(timesteps)
    return timesteps.tolist(), [*sigmas.tolist(), 0.0]


def _log_snr(ratio: float) -> float:
    """Return the paper's lambda, log(alpha / sigma), of sigma over alpha."""
    return -math.log(ratio) if ratio else math.inf


DPMPP_2M = Sampler(
    name="dpmpp_2m",
    label="DPM++ 2M",
    diffusers="DPMSolverMultistepScheduler",
    num_kept=1,
    trajectory=dpmpp_2m,
)
