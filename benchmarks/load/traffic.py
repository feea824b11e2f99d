"""Traffic: who asks when, for how many steps, and until when an answer is of use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

STEPS = (4, 10, 25, 50)


@dataclass(frozen=True)
class Traffic:
    """Pictures in the order in which they are asked for.

    Attributes:
        arrivals: seconds, never falling.
        steps: the denoising steps of each.
        deadlines: seconds; infinity is none.
    """

    arrivals: Floats
    steps: Floats
    deadlines: Floats

    def __len__(self) -> int:
        return len(self.arrivals)

    @property
    def has_deadlines(self) -> bool:
        """Whether any picture may be late."""
        return bool(np.isfinite(self.deadlines).any())


def poisson(
    rate: float,
    count: int,
    seed: int,
    *,
    steps: Sequence[int] = STEPS,
    step_seconds: float = 1.0,
    patience: tuple[float, float] | None = None,
) -> Traffic:
    """Return open-loop traffic: independent arrivals, each number of steps equally likely.

    Args:
        rate: pictures a second.
        count: how many.
        seed: of the draw.
        steps: the numbers of steps.
        step_seconds: what a step takes alone.
        patience: from how many to how many times its own time alone a picture may take; drawn evenly in the logarithm.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    drawn = rng.choice(np.array(steps, dtype=np.float64), count)
    deadlines = np.full(count, np.inf)
    if patience is not None:
        low, high = np.log(patience)
        deadlines = arrivals + drawn * step_seconds * np.exp(rng.uniform(low, high, count))
    return Traffic(arrivals, drawn, deadlines)
