"""What a sampler is: model evaluations in order, each a pure function of linear things, written as in its paper.

A sampler's file makes a ``Trajectory`` from a ``Setup``; ``plan.py`` turns it into a table of coefficients. No step
knows arrays: ``Linear`` is all that it may use, so the same function runs on a plan's unit vectors and, in tests, on
arrays. Imports the schedule.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

from mezzotint.engines.schedule import NoiseSchedule, Prediction, SigmaSpacing, Spacing, conversion


class Linear(Protocol):
    """Anything that can be added and scaled: a unit vector, an array, a tensor."""

    def __add__(self, other: Self, /) -> Self: ...
    def __sub__(self, other: Self, /) -> Self: ...
    def __mul__(self, factor: float, /) -> Self: ...


V = TypeVar("V", bound=Linear)

SPREAD = (SigmaSpacing.AS_TRAINED, SigmaSpacing.KARRAS, SigmaSpacing.EXPONENTIAL, SigmaSpacing.BETA)
"""The noise levels of a sampler that can go from any level to any lower one."""


@dataclass(frozen=True, slots=True)
class Values(Generic[V]):
    """What a step works on, in the papers' letters.

    Attributes:
        x: the sample, in the sampler's own space.
        x0: the clean sample that the model predicts.
        eps: the unit noise that the model predicts.
        output: what the model said, be it x0, eps or v.
        noise: fresh unit gaussian noise.
        kept: the ``num_kept`` arrays that the last evaluation kept; zero before the first.
    """

    x: V
    x0: V
    eps: V
    output: V
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
        draws: whether fresh noise is drawn for it, used or not: so often diffusers draws, and the stream stays in step.
    """

    timestep: float
    level: Level
    input_scale: float
    step: Step
    num_done: int
    draws: bool = False


@dataclass(frozen=True, slots=True)
class Trajectory:
    """All evaluations of one run; unit gaussian noise times ``initial_scale`` is the first sample."""

    initial_scale: float
    evaluations: Sequence[Evaluation]


@dataclass(frozen=True, slots=True)
class Setup:
    """What a sampler is asked for: the checkpoint's schedule, and the arguments of ``plan``.

    The levels of ``num_steps`` are chosen and the first ``num_skipped`` of them left out: the sampler begins at the
    first that is kept, as if nothing had been before it.
    """

    schedule: NoiseSchedule
    num_steps: int
    spacing: Spacing
    sigmas: SigmaSpacing
    eta: float
    custom_sigmas: tuple[float, ...] = ()
    num_skipped: int = 0

    @property
    def num_left(self) -> int:
        """The steps that are made."""
        return self.num_steps - self.num_skipped

    @property
    def steps_text(self) -> str:
        """How a refusal names the steps: by the field alone where all are made, since else nobody sent that number."""
        if not self.num_skipped:
            return f"steps={self.num_steps}"
        return f"the last {self.num_left} of {self.num_steps} steps, which the strength leaves"


@dataclass(frozen=True, slots=True)
class Sampler:
    """A sampler that can be asked for by name.

    Attributes:
        name: its name here.
        label: its name in A1111's web UI.
        diffusers: its class in diffusers; empty where there is none.
        num_kept: the arrays that it keeps between evaluations.
        trajectory: the sampler itself.
        aliases: other names that users type, in lower case with spaces.
        settings: what that class must be set to; of samplers of one class the first in the registry goes by its name.
        sigma_spacings: the noise levels that it can follow.
        automatic: those that A1111's schedule type "Automatic" gives it.
        takes_eta: whether ``eta`` means anything to it.
        default_spacing: the spacing where neither request nor checkpoint names one: its class's default in diffusers.
    """

    name: str
    label: str
    diffusers: str
    num_kept: int
    trajectory: Callable[[Setup], Trajectory]
    aliases: tuple[str, ...] = ()
    settings: Mapping[str, str | int] = field(default_factory=dict)
    sigma_spacings: tuple[SigmaSpacing, ...] = SPREAD
    automatic: SigmaSpacing = SigmaSpacing.AS_TRAINED
    takes_eta: bool = False
    default_spacing: Spacing = Spacing.LINSPACE


def evaluate(
    evaluation: Evaluation, prediction: Prediction, x: V, kept: tuple[V, ...], output: V, noise: V
) -> tuple[tuple[V, ...], V]:
    """Return ((next sample, kept…), x0) of one evaluation, applied to anything linear."""
    to = conversion(prediction, evaluation.level.alpha, evaluation.level.sigma)
    seen = x * evaluation.input_scale
    x0 = seen * to.x0[0] + output * to.x0[1]
    eps = seen * to.noise[0] + output * to.noise[1]
    return evaluation.step(Values(x, x0, eps, output, noise, kept)), x0
