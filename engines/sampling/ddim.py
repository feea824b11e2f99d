"""DDIM: Song, Meng & Ermon 2020, "Denoising Diffusion Implicit Models" (arXiv 2010.02502)."""

import math

from mezzotint.engines.sampling.base import Evaluation, Level, Sampler, Setup, Step, Trajectory, V, Values
from mezzotint.engines.sampling.levels import trained_level, whole_timesteps
from mezzotint.engines.schedule import SigmaSpacing, Spacing


def ddim_step(now: Level, last: Level, eta: float) -> Step:
    """Equation 12, with the standard deviation of equation 16 times ``eta``; ``last`` is the paper's t − 1."""
    variance = (last.sigma / now.sigma) ** 2 * (1.0 - (now.alpha / last.alpha) ** 2)
    std = eta * math.sqrt(variance)
    direction = math.sqrt(last.sigma**2 - std**2)

    def step(at: Values[V]) -> tuple[V, ...]:
        return (at.x0 * last.alpha + at.eps * direction + at.noise * std,)

    return step


def ddim(setup: Setup) -> Trajectory:
    """Step by the same stride whatever the spacing, as diffusers; timesteps of linspace are rounded."""
    schedule = setup.schedule
    alphas = schedule.alphas_cumprod.tolist()
    stride = schedule.num_train_timesteps // setup.num_steps
    final = 1.0 if schedule.set_alpha_to_one else alphas[0]
    evaluations = []
    for i, timestep in enumerate(whole_timesteps(setup)):
        now = trained_level(alphas[timestep])
        last = trained_level(alphas[timestep - stride] if timestep >= stride else final)
        step = ddim_step(now, last, setup.eta)
        evaluations.append(Evaluation(timestep, now, 1.0, step, i + 1, draws=setup.eta > 0))
    return Trajectory(1.0, evaluations)


DDIM = Sampler(
    name="ddim",
    label="DDIM",
    diffusers="DDIMScheduler",
    num_kept=0,
    trajectory=ddim,
    sigma_spacings=(SigmaSpacing.AS_TRAINED,),
    takes_eta=True,
    default_spacing=Spacing.LEADING,
)
