"""DPM-Solver++ of the reverse SDE: Lu et al. 2022 (arXiv 2211.01095); k-diffusion's ``sample_dpmpp_2m_sde``.

The noise of a step is independent of all others', so that fresh noise will do.
"""

import itertools
import math
from collections.abc import Sequence

from mezzotint.engines.sampling.base import Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import FEW_STEPS, log_snr, multistep_levels, preserving
from mezzotint.engines.schedule import SigmaSpacing


def sde_step(known: Sequence[float], there: float, num_kept: int) -> Step:
    """From the newest of the levels ``known`` to ``there``; the order is the number of levels. Keeps x0 and earlier.

    Order 2 is the midpoint form of SDE-DPM-Solver++(2M). Order 3 is k-diffusion's ``sample_dpmpp_3m_sde``; diffusers
    0.36 to 0.42 subtracts the ½ of the second difference's weight, which is added here: as h goes to 0 the weight has
    to go to 0 as well, and theirs goes to −1.
    """
    here = known[0]
    now, then = Level.of_ratio(here), Level.of_ratio(there)
    h = log_snr(there) - log_snr(here)
    decay = math.exp(-h)
    gain = -math.expm1(-2 * h)  # of x0, and the share of the noise's variance
    gaps = [log_snr(a) - log_snr(b) for a, b in itertools.pairwise(known)]

    def step(at: Values[V]) -> tuple[V, ...]:
        x = at.x * (then.sigma / now.sigma * decay) + at.x0 * (then.alpha * gain)
        x = x + at.noise * (then.sigma * math.sqrt(gain))
        if gaps:
            slope = (at.x0 - at.kept[0]) * (h / gaps[0])
        if len(gaps) == 1:
            x = x + slope * (then.alpha * gain / 2)
        if len(gaps) == 2:
            earlier = (at.kept[0] - at.kept[1]) * (h / gaps[1])
            bend = (slope - earlier) * (h / sum(gaps))
            slope = slope + bend * (gaps[0] / h)
            of_slope = 1 - gain / (2 * h)
            of_bend = 0.5 - of_slope / (2 * h)
            x = x + slope * (then.alpha * of_slope) + bend * (then.alpha * of_bend)
        return x, *(at.x0, *at.kept)[:num_kept]

    return step


def dpmpp_2m_sde(setup: Setup) -> Trajectory:
    """Second order but for the first step and the last, to sigma 0, where x0 is all that is left."""
    return _walk(setup, "dpmpp_2m_sde", 2)


def dpmpp_3m_sde(setup: Setup) -> Trajectory:
    """Third order after a step of first and one of second order; the last step goes to sigma 0."""
    return _walk(setup, "dpmpp_3m_sde", 3)


def _walk(setup: Setup, name: str, most: int) -> Trajectory:
    timesteps, sigmas = multistep_levels(setup, name)
    sigmas = [*sigmas, 0.0]
    evaluations = []
    for i, timestep in enumerate(timesteps):
        left = setup.num_left - i
        order = min(most, i + 1)
        if left == 1 or (left == 2 and setup.num_steps < FEW_STEPS):
            order = min(order, left)
        step = sde_step(sigmas[i - order + 1 : i + 1][::-1], sigmas[i + 1], most - 1)
        evaluations.append(preserving(timestep, sigmas[i], step, i + 1, draws=True))
    return Trajectory(1.0, evaluations)


DPMPP_2M_SDE = Sampler(
    name="dpmpp_2m_sde",
    label="DPM++ 2M SDE",
    diffusers="DPMSolverMultistepScheduler",
    num_kept=1,
    trajectory=dpmpp_2m_sde,
    settings={"algorithm_type": "sde-dpmsolver++"},
    automatic=SigmaSpacing.EXPONENTIAL,
)
DPMPP_3M_SDE = Sampler(
    name="dpmpp_3m_sde",
    label="DPM++ 3M SDE",
    diffusers="DPMSolverMultistepScheduler",
    num_kept=2,
    trajectory=dpmpp_3m_sde,
    settings={"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
    automatic=SigmaSpacing.EXPONENTIAL,
)
