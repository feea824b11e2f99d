"""Traffic: who asks when, for how many steps, of which size, and until when an answer is of use."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

STEPS = (4, 10, 25, 50)


@dataclass(frozen=True)
class Traffic:
    """Pictures in the order in which they are asked for.

    Attributes:
        arrivals: seconds, never falling.
        steps: the denoising steps of each.
        deadlines: seconds; infinity is none.
        sizes: which of the engine's picture sizes each has.
    """

    arrivals: Floats
    steps: Floats
    deadlines: Floats
    sizes: Indices

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
    step_seconds: Sequence[float] = (1.0,),
    patience: tuple[float, float] | None = None,
) -> Traffic:
    """Return open-loop traffic: independent arrivals, each number of steps equally likely, and so each size.

    Args:
        rate: pictures a second.
        count: how many.
        seed: of the draw.
        steps: the numbers of steps.
        step_seconds: what a step takes alone, by the picture's size.
        patience: from how many to how many times its own time alone a picture may take; drawn evenly in the logarithm.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, count))
    drawn = rng.choice(np.array(steps, dtype=np.float64), count)
    low, high = np.log(patience or (1.0, 1.0))
    spread = rng.uniform(low, high, count)
    sizes = rng.choice(len(step_seconds), count) if len(step_seconds) > 1 else np.zeros(count, dtype=np.intp)
    alone = drawn * np.array(step_seconds)[sizes]
    deadlines = np.full(count, np.inf) if patience is None else arrivals + alone * np.exp(spread)
    return Traffic(arrivals, drawn, deadlines, sizes)
