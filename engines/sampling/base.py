"""What a sampler is: model evaluations in order, each a pure function of linear things, written as in its paper.

A sampler's file makes a ``Trajectory`` from a ``Setup``; ``plan.py`` turns it into a table of coefficients. No step
knows arrays: ``Linear`` is all that it may use, so the same function runs on a plan's unit vectors and, in tests, on
arrays. Imports numpy and the schedule.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

import numpy as np

from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing, conversion, karras_sigmas


class Linear(Protocol):
    """Anything that can be added and scaled: a unit vector, an array, a tensor."""

    def __add__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __mul__(self, factor: float, /) -> Self: ...


V = TypeVar("V", bound=Linear)


@dataclass(frozen=True, slots=True)
class Values(Generic[V]):
    """What a step works on, in the papers' letters.

    Attributes:
        x: the sample, in the sampler's own space.
        x0: the clean sample that the model predicts.
        eps: the unit noise that the model predicts.
        noise: fresh unit gaussian noise.
        kept: the ``num_kept`` arrays that the last evaluation kept; zero before the first.
    """

    x: V
    x0: V
    eps: V
    noise: V
    kept: tuple[V, ...]


class Step(Protocol):
    """One evaluation's update, linear in its values."""

    def __call__(self, at: Values[V], /) -> tuple[V, ...]:
        """Return (next sample, kept arrays…)."""
        ...


@dataclass(frozen=True, slots=True)
class Level:
    """A noise level.

    A variance-preserving sample there is alpha * x0 + sigma * noise, a variance-exploding one that over alpha.
    """

    alpha: float
    sigma: float

    @classmethod
    def of_ratio(cls, ratio: float) -> "Level":
        """Return the level whose noise over signal, k-diffusion's sigma, is ``ratio``."""
        alpha = 1.0 / math.sqrt(ratio**2 + 1.0)
        return cls(alpha, ratio * alpha)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model evaluation and what follows from it.

    Attributes:
        timestep: what the model is told; may be fractional.
        level: the noise level of the sample that it sees.
        input_scale: sample times this is the variance-preserving sample, which the model sees.
        step: the update.
        num_done: the user's steps that are complete after it.
    """

    timestep: float
    level: Level
    input_scale: float
    step: Step
    num_done: int


@dataclass(frozen=True, slots=True)
class Trajectory:
    """All evaluations of one run; unit gaussian noise times ``initial_scale`` is the first sample."""

    initial_scale: float
    evaluations: Sequence[Evaluation]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a sampler is asked for: the checkpoint's schedule, and the arguments of ``plan``."""

    schedule: NoiseSchedule
    num_steps: int
    spacing: Spacing
    sigmas: SigmaSpacing
    eta: float
    custom_sigmas: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler that can be asked for by name.

    Attributes:
        name: its name here.
        label: its name in A1111's web UI.
        diffusers: its class in diffusers.
        num_kept: the arrays that it keeps between evaluations.
        trajectory: the sampler itself.
        aliases: other names that users type, in lower case with spaces.
        sigma_spacings: the noise levels that it can follow.
        takes_eta: whether ``eta`` means anything to it.
        default_spacing: the spacing where neither request nor checkpoint names one: its class's default in diffusers.
    """

    name: str
    label: str
    diffusers: str
    num_kept: int
    trajectory: Callable[[Setup], Trajectory]
    aliases: tuple[str, ...] = ()
    sigma_spacings: tuple[SigmaSpacing, ...] = tuple(SigmaSpacing)
    takes_eta: bool = False
    default_spacing: Spacing = Spacing.LINSPACE


def exploding_levels(setup: Setup) -> tuple[list[float], list[float], float]:
    """Return (N timesteps, N + 1 sigmas that end in 0, initial scale) of k-diffusion's variance-exploding samplers.

    The initial scale of leading spacing, whose first sigma is below the largest, is that of data and noise together,
    as in diffusers (``init_noise_sigma``).
    """
    schedule = setup.schedule
    timesteps = schedule.timesteps(setup.num_steps, setup.spacing)
    sigmas = schedule.sigmas_at(timesteps)
    if setup.custom_sigmas:
        sigmas = np.array(setup.custom_sigmas)
        timesteps = schedule.timesteps_at(sigmas)
    elif setup.sigmas is SigmaSpacing.KARRAS:
        sigmas = karras_sigmas(float(sigmas[-1]), float(sigmas[0]), setup.num_steps)
        timesteps = schedule.timesteps_at(sigmas)
    largest = float(np.max(sigmas))
    initial_scale = math.hypot(largest, 1.0) if setup.spacing is Spacing.LEADING else largest
    return timesteps.tolist(), [*sigmas.tolist(), 0.0], initial_scale


def exploding(timestep: float, sigma: float, step: Step, num_done: int) -> Evaluation:
    """Return the evaluation of a sample x0 + sigma * noise, which the model sees scaled to unit variance."""
    level = Level.of_ratio(sigma)
    return Evaluation(timestep, level, level.alpha, step, num_done)


def evaluate(
    evaluation: Evaluation, prediction: Prediction, x: V, kept: tuple[V, ...], output: V, noise: V
) -> tuple[tuple[V, ...], V]:
    """Return ((next sample, kept…), x0) of one evaluation, applied to anything linear."""
    to = conversion(prediction, evaluation.level.alpha, evaluation.level.sigma)
    seen = x * evaluation.input_scale
    x0 = seen * to.x0[0] + output * to.x0[1]
    eps = seen * to.noise[0] + output * to.noise[1]
    return evaluation.step(Values(x, x0, eps, noise, kept)), x0
