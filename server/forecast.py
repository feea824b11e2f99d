"""When will whoever is here be done, if nobody else comes? Pure; the clock is passed in. Imports nothing of ours."""

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

_CALLS = 64  # that the pace is taken from
_KNOWN_CALLS = 4
_MOST = 4.0  # times the present pace that one call counts for at most: a size's first call may compile it
_FRESH_SECONDS = 0.1
_FIRST_GUESS_SECONDS = 1.0
_FORGET = 0.2  # the share of a new interval in the running mean

Who = TypeVar("Who", bound=Hashable)


class Forecast(NamedTuple):
    """Seconds from now until an image's first call begins, 0 where it has begun, and until it is done."""

    start: float
    finish: float


class Pace:
    """How much longer this machine takes, at present, than was measured: the ratio over the last calls."""

    def __init__(self) -> None:
        self._calls: deque[tuple[float, float]] = deque()
        self._expected = self._took = 0.0  # sums of these, since every call asks for the ratio
        self.ratio = 1.0

    @property
    def is_known(self) -> bool:
        """Whether enough calls were seen to rely on it."""
        return len(self._calls) >= _KNOWN_CALLS

    def note(self, expected: float, seconds: float) -> None:
        """Note what a call was expected to take and what it took; one of which nothing was expected says nothing."""
        if expected <= 0:
            return
        seconds = min(seconds, _MOST * self.ratio * expected)
        self._calls.append((expected, seconds))
        self._expected += expected
        self._took += seconds
        if len(self._calls) > _CALLS:
            gone = self._calls.popleft()
            self._expected -= gone[0]
            self._took -= gone[1]
        self.ratio = self._took / self._expected


class Intervals:
    """The running mean of the seconds between images that are done, while there is something to do."""

    def __init__(self) -> None:
        self.mean = _FIRST_GUESS_SECONDS
        self._last: float | None = None

    def note(self, num_images: int, now: float, *, pause: bool) -> None:
        """Note images that are done at one time; with ``pause`` the time until the next ones does not count."""
        if not num_images:
            return
        if self._last is not None:
            seconds = max(0.0, now - self._last) / num_images
            self.mean += _FORGET * (seconds - self.mean)
        self._last = None if pause else now


def forecast(
    work: Sequence[tuple[float, float]], started: Sequence[bool], slots: int, stretch: Callable[[int], float]
) -> list[Forecast]:
    """Return when each image is done, the first in order first.

    As many images as a call holds are taken side by side, each in a slot; a slot that is free takes the next image.
    While they denoise, what else there is to do for one of them holds up all.

    Args:
        work: seconds of denoising and of all else that each image still is (``costs.Work``).
        started: whether each has had its first call.
        slots: how many images a call holds.
        stretch: the seconds that a second of denoising work takes where so many images share calls.
    """
    if not work:
        return []
    sharing = min(slots, len(work))
    each = stretch(sharing)
    free = [0.0] * sharing
    found = []
    for (denoising, rest), has_started in zip(work, started, strict=True):
        start = free[0]
        finish = start + denoising * each + rest * sharing
        heapq.heapreplace(free, finish)
        found.append(Forecast(0.0 if has_started else start, finish))
    return found


class Outlook(Generic[Who]):
    """The last forecast, made again where it is older than a tenth of a second: a step's progress asks each time."""

    def __init__(self, make: Callable[[float], Mapping[Who, Forecast]]) -> None:
        self._make = make
        self._made: Mapping[Who, Forecast] = {}
        self._made_at = 0.0

    def of(self, images: Iterable[Who], now: float) -> Forecast:
        """Return when the first of the images begins and the last is done; those that are gone are."""
        images = tuple(images)
        if now - self._made_at > _FRESH_SECONDS or any(image not in self._made for image in images):
            self._made, self._made_at = self._make(now), now
        past = now - self._made_at
        found = [self._made.get(image, Forecast(0.0, 0.0)) for image in images]
        return Forecast(
            max(0.0, min(each.start for each in found) - past), max(0.0, max(each.finish for each in found) - past)
        )
