"""DEIS: Zhang & Chen 2022, "Fast Sampling with Exponential Integrator" (arXiv 2204.13902), in diffusers' log rho."""

import math

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import FEW_STEPS, multistep_levels, preserving
from mezzotint.engines.schedule import SigmaSpacing


def deis_weight(own: float, other: float, here: float, there: float) -> float:
    """Return the integral, over rho from ``here`` to ``there``, of the line in log rho: 1 at ``own``, 0 at ``other``.

    Equation 15 with one earlier evaluation. rho is noise over signal.
    """

    def antiderivative(rho: float) -> float:
        return rho * (math.log(rho) - math.log(other) - 1.0) / (math.log(own) - math.log(other))

    return antiderivative(there) - antiderivative(here)


def deis_1_step(here: float, there: float) -> Step:
    """First order, which is DDIM; keeps eps."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x * (then.alpha / now.alpha) + at.eps * (then.alpha * (there - here)), at.eps

    return step


def deis_2_step(before: float, here: float, there: float) -> Step:
    """Second order, tAB-DEIS with one earlier eps, kept at ``before``; keeps eps."""
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    of_now = then.alpha * deis_weight(here, before, here, there)
    of_before = then.alpha * deis_weight(before, here, here, there)

    def step(at: Values[V]) -> tuple[V, ...]:
        return at.x * (then.alpha / now.alpha) + at.eps * of_now + at.kept[0] * of_before, at.eps

    return step


def deis(setup: Setup) -> Trajectory:
    """Second order but for the first step; ends at the lowest trained level, not at 0, as in diffusers.

    Where levels are spread, the lowest is that of the last evaluation, so that the last step stands still. Levels of
    the request's own end in 0, to which a step is first order, since the integral's line has no value there.

    Raises:
        InvalidRequest: the only step would stand still, or two share a noise level.
    """
    timesteps, sigmas = multistep_levels(setup, "deis")
    end = _end(setup, sigmas[-1])
    sigmas = [*sigmas, end]
    evaluations = []
    for i, timestep in enumerate(timesteps):
        is_last = i == setup.num_left - 1 and (setup.num_steps < FEW_STEPS or not end)
        if i == 0 or is_last:
            step = deis_1_step(sigmas[i], sigmas[i + 1])
        else:
            step = deis_2_step(sigmas[i - 1], sigmas[i], sigmas[i + 1])
        evaluations.append(preserving(timestep, sigmas[i], step, i + 1))
    return Trajectory(1.0, evaluations)


def _end(setup: Setup, lowest: float) -> float:
    """Return the noise over signal that the last step leads to. Raises InvalidRequest."""
    if setup.custom_sigmas:
        return 0.0
    if setup.sigmas is SigmaSpacing.AS_TRAINED:
        return float(setup.schedule.sigmas[0])
    if setup.num_steps == 1:
        raise InvalidRequest(
            f"steps=1: deis with {setup.sigmas.value} noise levels stands still in its last step, so that one step "
            "makes no picture; use at least 2, or euler"
        )
    return lowest


DEIS = Sampler(name="deis", label="DEIS", diffusers="DEISMultistepScheduler", num_kept=1, trajectory=deis)
