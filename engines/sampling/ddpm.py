"""DDPM: Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models" (arXiv 2006.11239)."""

import math

from mezzotint.engines.sampling.base import Evaluation, Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import trained_level, whole_timesteps
from mezzotint.engines.schedule import SigmaSpacing, Spacing


def ddpm_step(now: Level, last: Level) -> Step:
    """Equations 6 and 7, the posterior of the last level given x0; its variance is the smaller of section 3.2."""
    alpha = (now.alpha / last.alpha) ** 2  # of this step alone
    of_x0 = last.alpha * (1.0 - alpha) / now.sigma**2
    of_x = math.sqrt(alpha) * last.sigma**2 / now.sigma**2
    std = last.sigma / now.sigma * math.sqrt(1.0 - alpha)

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.x0 * of_x0 + at.x * of_x + at.noise * std,)

    return step


def ddpm(setup: Setup) -> Trajectory:
    """Go from each timestep to the next of the list, and from the last one to the clean sample."""
    alphas = setup.schedule.alphas_cumprod.tolist()
    timesteps = whole_timesteps(setup)
    levels = [*(trained_level(alphas[timestep]) for timestep in timesteps), Level(1.0, 0.0)]
    return Trajectory(
        1.0,
        [
            Evaluation(timestep, levels[i], 1.0, ddpm_step(levels[i], levels[i + 1]), i + 1, draws=timestep > 0)
            for i, timestep in enumerate(timesteps)
        ],
    )


DDPM = Sampler(
    name="ddpm",
    label="DDPM",
    diffusers="DDPMScheduler",
    num_kept=0,
    trajectory=ddpm,
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    default_spacing=Spacing.LEADING,
)
