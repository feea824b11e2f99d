"""What has been asked of a server lately, and what follows for the order of its queue. Imports nothing of ours."""

import math
from collections import deque

_WINDOW = 512  # images; the estimates of fewer stray by tens of percent
_MIN_IMAGES = 16
_MAX_LOAD = 0.95  # beyond it the wait that first-come would give is whatever the queue bounds
_FACTOR = 6.0  # found by simulation, benchmarks/load: the mean at 0.65 of first-come's while its p99 is not passed
_SHARED = 0.6  # found so too: no percentile of the latency over 1.05 of first-come's where calls gain


class Demand:
    """The last images that came: when, and how many seconds of engine time each takes.

    Args:
        images_a_call: how many images an engine call makes at one time.
    """

    def __init__(self, images_a_call: float = 1.0) -> None:
        self.images_a_call = max(1.0, images_a_call)
        self._came: deque[tuple[float, float]] = deque(maxlen=_WINDOW)
        self._sum = self._sum_of_squares = 0.0

    def come(self, arrival: float, size: float) -> None:
        """Note an image of ``size`` seconds of work."""
        if len(self._came) == _WINDOW:
            gone = self._came[0][1]
            self._sum -= gone
            self._sum_of_squares -= gone * gone
        self._came.append((arrival, size))
        self._sum += size
        self._sum_of_squares += size * size

    @property
    def mean_size(self) -> float:
        """The mean work of an image in seconds; 0 before any has come."""
        return self._sum / len(self._came) if self._came else 0.0

    @property
    def load(self) -> float:
        """The seconds of work that come each second, at most ``_MAX_LOAD``; that of so few that it is not known too."""
        if len(self._came) < _MIN_IMAGES:
            return _MAX_LOAD
        seconds = self._came[-1][0] - self._came[0][0]
        return min(_MAX_LOAD, (self._sum - self._came[0][1]) / seconds) if seconds > 0 else _MAX_LOAD

    @property
    def mean_wait(self) -> float:
        """The seconds that an image would wait on average, first come, first served (Pollaczek–Khinchine)."""
        if not self._came or not self._sum:
            return 0.0
        mean_square = self._sum_of_squares / len(self._came)
        return self.load * mean_square / (2 * self.mean_size * (1 - self.load))

    @property
    def gamma(self) -> float:
        """γ of γ-Boost in 1/seconds, to second order: λ·(E exp(γS) − 1) = γ gives 1/γ as the mean wait."""
        return 1 / max(self.mean_wait, 1e-6)

    @property
    def boost_seconds(self) -> float:
        """The seconds of ``log_boost``: between the mean work and the mean wait, less where images share calls.

        Where a call makes many images at once, a long one's latency is its own calls' more than its wait, and putting
        it off costs more than it gives.
        """
        return _FACTOR * math.sqrt(self.mean_size * self.mean_wait) * math.pow(self.images_a_call, -_SHARED)
