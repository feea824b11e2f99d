"""The timesteps and noise levels that samplers walk along, as diffusers' classes choose them. Imports numpy."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Evaluation, Level, Setup, Step
from mezzotint.engines.schedule import SigmaSpacing, Spacing, spread_sigmas

NUM_DISTILLED = 50
"""The timesteps of LCM's and TCD's distillation, diffusers' ``original_inference_steps``."""

FEW_STEPS = 15
"""Below as many, diffusers makes the steps before the end of a lower order (``lower_order_final``)."""


def exploding_levels(setup: Setup) -> tuple[list[float], list[float], float]:
    """Return (timesteps, sigmas that end in 0, initial scale) of k-diffusion's variance-exploding samplers.

    The initial scale of leading spacing, whose first sigma is below the largest, is that of data and noise together,
    as in diffusers (``init_noise_sigma``).
    """
    schedule = setup.schedule
    timesteps = schedule.timesteps(setup.num_steps, setup.spacing)
    sigmas = schedule.sigmas_at(timesteps)
    if setup.custom_sigmas:
        sigmas = np.array(setup.custom_sigmas)
        timesteps = schedule.timesteps_at(sigmas)
    elif setup.sigmas is not SigmaSpacing.AS_TRAINED:
        sigmas = spread_sigmas(setup.sigmas, float(sigmas[-1]), float(sigmas[0]), setup.num_steps)
        timesteps = schedule.timesteps_at(sigmas)
    largest = float(np.max(sigmas))
    initial_scale = math.hypot(largest, 1.0) if setup.spacing is Spacing.LEADING else largest
    first = setup.num_skipped
    return timesteps[first:].tolist(), [*sigmas[first:].tolist(), 0.0], initial_scale


def exploding(timestep: float, sigma: float, step: Step, num_done: int, *, draws: bool = False) -> Evaluation:
    """Return the evaluation of a sample x0 + sigma * noise, which the model sees scaled to unit variance."""
    level = Level.of_ratio(sigma)
    return Evaluation(timestep, level, level.alpha, step, num_done, draws)


def preserving(timestep: float, sigma: float, step: Step, num_done: int, *, draws: bool = False) -> Evaluation:
    """Return the evaluation of a variance-preserving sample, ``sigma`` being noise over signal."""
    return Evaluation(timestep, Level.of_ratio(sigma), 1.0, step, num_done, draws)


def multistep_levels(setup: Setup, name: str) -> tuple[list[float], list[float]]:
    """Return whole timesteps and sigmas of solvers that extrapolate from earlier evaluations.

    The step from the last level to the end counts as one where spacing divides. diffusers rounds the timesteps of
    Karras's levels and truncates those of exponential and beta ones; with Karras's levels on a cosine schedule its
    DPM-Solver alone truncates as well, which is left out here.

    Raises:
        InvalidRequest: two steps would share a noise level, so that the extrapolation has no answer.
    """
    schedule, num_steps = setup.schedule, setup.num_steps
    if setup.custom_sigmas:
        sigmas = np.array(setup.custom_sigmas)
        timesteps = np.round(schedule.timesteps_at(sigmas))
    elif setup.sigmas is not SigmaSpacing.AS_TRAINED:
        trained = schedule.sigmas
        sigmas = spread_sigmas(setup.sigmas, float(trained[0]), float(trained[-1]), num_steps)
        timesteps = schedule.timesteps_at(sigmas)
        karras = setup.sigmas is SigmaSpacing.KARRAS
        timesteps = np.round(timesteps) if karras else np.floor(timesteps + 1e-3)
    else:
        num_intervals = num_steps if setup.spacing is Spacing.TRAILING else num_steps + 1
        timesteps = np.round(schedule.timesteps(num_intervals, setup.spacing))[:num_steps]
        sigmas = schedule.sigmas_at(timesteps)
    timesteps, sigmas = timesteps[setup.num_skipped :], sigmas[setup.num_skipped :]
    check_falling(sigmas.tolist(), setup, name)
    return timesteps.tolist(), sigmas.tolist()


def check_falling(sigmas: Sequence[float], setup: Setup, name: str) -> None:
    """Refuse noise levels of which two are the same. Raises InvalidRequest."""
    if any(there >= here for here, there in itertools.pairwise(sigmas)):
        raise InvalidRequest(
            f"{setup.steps_text}: {name} with {setup.spacing.value} spacing meets one noise level twice; "
            "use fewer steps or euler"
        )


def whole_timesteps(setup: Setup) -> list[int]:
    """Return whole timesteps, falling, of samplers that know trained levels alone."""
    timesteps = np.round(setup.schedule.timesteps(setup.num_steps, setup.spacing))
    return [int(timestep) for timestep in timesteps[setup.num_skipped :].tolist()]


def trained_level(alpha_cumprod: float) -> Level:
    """Return the level that keeps this share of signal power."""
    return Level(math.sqrt(alpha_cumprod), math.sqrt(1.0 - alpha_cumprod))


def distilled_timesteps(setup: Setup, name: str) -> list[int]:
    """Return timesteps of the fifty that latent consistency models are distilled at, from the last one down.

    Spacing is not looked at, as in diffusers (``original_inference_steps``).

    Raises:
        InvalidRequest: there are more steps than distilled timesteps, or the schedule has fewer than those.
    """
    stride = setup.schedule.num_train_timesteps // NUM_DISTILLED
    if not stride:
        raise InvalidRequest(f"sampler={name}: needs {NUM_DISTILLED} trained timesteps; use ddim")
    if setup.num_steps > NUM_DISTILLED:
        raise InvalidRequest(f"{setup.steps_text}: {name} takes at most {NUM_DISTILLED}; 4 to 8 are usual")
    distilled: npt.NDArray[np.int64] = np.arange(NUM_DISTILLED, 0, -1) * stride - 1
    picked = np.floor(np.linspace(0, NUM_DISTILLED, setup.num_steps, endpoint=False)).astype(np.int64)
    return [int(timestep) for timestep in distilled[picked][setup.num_skipped :].tolist()]


def log_snr(ratio: float) -> float:
    """Return DPM-Solver's lambda, log(alpha / sigma), of sigma over alpha."""
    return -math.log(ratio) if ratio else math.inf


def mean_level(sigma: float, other: float) -> float:
    """Return the sigma in the middle of two on a log scale."""
    return math.sqrt(sigma * other)
