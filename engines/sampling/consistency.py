"""LCM and TCD, for models that were distilled to few steps.

LCM: Luo et al. 2023, "Latent Consistency Models" (arXiv 2310.04378). TCD: Zheng et al. 2024, "Trajectory Consistency
Distillation" (arXiv 2402.19159).
"""

import math

import numpy as np

from mezzotint.engines.sampling.base import Evaluation, Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import distilled_timesteps, trained_level
from mezzotint.engines.schedule import SigmaSpacing, Spacing

_SIGMA_DATA = 0.5
_TIMESTEP_SCALING = 10.0


def lcm_step(timestep: int, then: Level | None) -> Step:
    """Algorithm 3: the consistency function of the appendix's boundary condition, then noise up to the next level."""
    scaled = timestep * _TIMESTEP_SCALING
    skip = _SIGMA_DATA**2 / (scaled**2 + _SIGMA_DATA**2)
    out = scaled / math.hypot(scaled, _SIGMA_DATA)
    signal, noise = (1.0, 0.0) if then is None else (then.alpha, then.sigma)

    def step(at: Values[V]) -> tuple[V, ...]:
        return ((at.x0 * out + at.x * skip) * signal + at.noise * noise,)

    return step


def tcd_step(there: Level, then: Level) -> Step:
    """Strategic stochastic sampling, algorithm 4: along the trajectory to ``there``, then noise up to ``then``."""
    ratio = then.alpha / there.alpha
    std = math.sqrt(max(1.0 - ratio**2, 0.0))

    def step(at: Values[V]) -> tuple[V, ...]:
        return ((at.x0 * there.alpha + at.eps * there.sigma) * ratio + at.noise * std,)

    return step


def lcm(setup: Setup) -> Trajectory:
    """Predict the clean sample at every step, and add fresh noise for the next one; the last adds none."""
    alphas = setup.schedule.alphas_cumprod.tolist()
    timesteps = distilled_timesteps(setup, "lcm")
    levels = [trained_level(alphas[timestep]) for timestep in timesteps]
    evaluations = []
    for i, timestep in enumerate(timesteps):
        then = levels[i + 1] if i + 1 < len(levels) else None
        step = lcm_step(timestep, then)
        evaluations.append(Evaluation(timestep, levels[i], 1.0, step, i + 1, draws=then is not None))
    return Trajectory(1.0, evaluations)


def tcd(setup: Setup) -> Trajectory:
    """Step to below the next level by the share ``eta``, the paper's gamma; the last one ends at the first timestep."""
    alphas = setup.schedule.alphas_cumprod.tolist()
    timesteps = distilled_timesteps(setup, "tcd")
    evaluations = []
    for i, timestep in enumerate(timesteps):
        is_last = i == len(timesteps) - 1
        following = 0 if is_last else timesteps[i + 1]
        below = int(np.floor(np.float32(1 - setup.eta) * np.float32(following)))  # in float32, as torch
        there, then = trained_level(alphas[below]), trained_level(alphas[following])
        step = tcd_step(there, there if is_last or not setup.eta else then)
        draws = setup.eta > 0 and not is_last
        evaluations.append(Evaluation(timestep, trained_level(alphas[timestep]), 1.0, step, i + 1, draws=draws))
    return Trajectory(1.0, evaluations)


LCM = Sampler(
    name="lcm",
    label="LCM",
    diffusers="LCMScheduler",
    num_kept=0,
    trajectory=lcm,
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    default_spacing=Spacing.LEADING,
)
TCD = Sampler(
    name="tcd",
    label="TCD",
    diffusers="TCDScheduler",
    num_kept=0,
    trajectory=tcd,
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    takes_eta=True,
    default_spacing=Spacing.LEADING,
)
