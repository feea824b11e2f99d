"""A model whose engine calls are timed, and what those of a run say of its engines."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from benchmarks.load.engine import Curve
from benchmarks.load.traffic import Floats
from mezzotint.engines.backend import Array
from mezzotint.engines.batch import Batch
from mezzotint.engines.image import Stage
from mezzotint.engines.model import Model

_FEW = 5  # calls that have a mean


@dataclass(frozen=True, slots=True)
class TimedCall:
    """An engine call; ``began`` and ``ended`` are seconds since the model's ``restart``.

    Attributes:
        size: which of the picture sizes.
        num_done: the pictures that were done with it.
    """

    stage: Stage
    size: int
    num_images: int
    began: float
    ended: float
    num_done: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Timed(Model):
    """A model that notes its calls; whoever serves it may close it, and its engines stay for the next.

    Args:
        model: whose engines it runs.
        sides: the picture sizes, in pixels.
    """

    def __init__(self, model: Model, sides: Sequence[int]) -> None:
        super().__init__(model.manifest, model.digest, model.prompts, model.engines, model.max_rows)
        factor = model.manifest.latents.factor
        self._sizes: Mapping[int, int] = {side // factor: size for size, side in enumerate(sides)}
        self.restart()

    def restart(self) -> float:
        """Forget all calls; returns the second of the monotonic clock from which on times count."""
        self.calls: list[TimedCall] = []
        self._start = time.monotonic()
        return self._start

    def encode(self, batch: Batch) -> None:
        """Encode a batch's prompts."""
        with self._timed(batch):
            super().encode(batch)

    def denoise(self, batch: Batch) -> Array:
        """Run the UNet once; returns what the model does."""
        with self._timed(batch):
            return super().denoise(batch)

    def decode(self, batch: Batch) -> None:
        """Run one engine of the decoder."""
        with self._timed(batch):
            super().decode(batch)

    def close(self) -> None:
        """Leave the engines as they are."""

    @contextmanager
    def _timed(self, batch: Batch) -> Iterator[None]:
        stage, size, began = batch.stage, self._sizes[batch.images[0].shape[1]], time.monotonic()
        yield
        ended = time.monotonic()
        num_done = sum(image.stage is Stage.DONE for image in batch.images)
        call = TimedCall(stage, size, len(batch.images), began - self._start, ended - self._start, num_done)
        self.calls.append(call)


def seconds_between(calls: Sequence[TimedCall], arrivals: Floats, dropped: Floats) -> float:
    """Return the mean seconds from the end of a call to the next one's beginning, where a picture was waiting for it.

    ``dropped`` are the seconds at which pictures left unmade.
    """
    ended = np.array([call.ended for call in calls])
    gone = np.cumsum([call.num_done for call in calls]) + np.searchsorted(np.sort(dropped), ended, side="right")
    is_busy = np.searchsorted(arrivals, ended, side="right") > gone
    idle = np.array([call.began for call in calls[1:]]) - ended[:-1]
    return float(idle[is_busy[:-1]].mean()) if is_busy[:-1].any() else 0.0


def run_curves(calls: Sequence[TimedCall], between: float, before: Sequence[Curve]) -> tuple[Curve, ...]:
    """Return a run's own curve of each size, with the seconds ``between`` calls in each call.

    Calls of as many pictures as the run had too few of are as much slower than ``before`` as the others.
    """
    by_size = [[call for call in calls if call.size == size] for size in range(len(before))]
    return tuple(_run_curve(own, between, known) for own, known in zip(by_size, before, strict=True))


def _run_curve(calls: Sequence[TimedCall], between: float, before: Curve) -> Curve:
    denoising: dict[int, list[float]] = {}
    rest = [call for call in calls if call.stage is not Stage.DENOISE]
    for call in calls:
        if call.stage is Stage.DENOISE:
            denoising.setdefault(call.num_images, []).append(call.seconds + between)
    own = {most: statistics.fmean(seconds) for most, seconds in denoising.items() if len(seconds) >= _FEW}
    drift = statistics.median([seconds / before.seconds[most - 1] for most, seconds in own.items()] or [1.0])
    seconds = tuple(own.get(i + 1, before.seconds[i] * drift) for i in range(before.most))
    num_made = sum(call.num_done for call in rest)
    finish = sum(call.seconds + between for call in rest) / num_made if num_made else before.finish_seconds
    return Curve(seconds, finish)
