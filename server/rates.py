"""What each client may ask for over time: token buckets in UNet rows. Pure, the clock is passed in; knows no wire.

A request costs the rows of its model evaluations, over all its pictures: what it makes the UNet compute, not how many
requests it is.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mezzotint.engines.errors import MezzotintError, RateLimited
from mezzotint.engines.image import Image

_DEFAULT_BURST_SECONDS = 10.0
_MANY = 1024  # buckets from which on full ones are looked for
_ROUNDING = 1e-6  # rows by which sums of floats may be off


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A client's budget.

    Attributes:
        rows_per_second: UNet rows that come back to its bucket in a second.
        burst: rows that the bucket holds.
    """

    rows_per_second: float
    burst: float

    def __post_init__(self) -> None:
        for name in ("rows_per_second", "burst"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise MezzotintError(f"{name}={value:g}: must be a finite number of rows above 0")

    def __str__(self) -> str:
        return f"{self.rows_per_second:f}:{self.burst:f}"


def parse_rate(text: str) -> RateLimit:
    """Read ``ROWS_PER_SECOND[:BURST]``; without a burst it is what comes back in ten seconds. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?::(\d+(?:\.\d+)?))?", text.strip())
    if found is None or not float(found[1]) or (found[2] and not float(found[2])):
        raise ValueError(f"{text!r} is no rate; write rows a second, as 100, or with a burst of rows, as 100:2000")
    rate = float(found[1])
    return RateLimit(rate, float(found[2]) if found[2] else rate * _DEFAULT_BURST_SECONDS)


def unet_rows(images: Iterable[Image]) -> int:
    """Return the rows that all evaluations of some images run."""
    walks = [walk for image in images for walk in (image, image.then) if walk is not None]
    return sum(len(call.weights) for walk in walks for call in walk.calls)


@dataclass(slots=True)
class _Bucket:
    rows: float
    filled: float  # when it held them


class Buckets:
    """A bucket for each client; any thread may ask.

    A request takes its rows out at once. One that costs more than a bucket holds is let in when the bucket is full, and
    leaves a debt that the client waits off later, so that none is refused for ever. In any time t a client is let in
    with at most rate · t + the larger of the burst and its dearest request.

    Args:
        limit: every client's.
        clock: seconds, never going back.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: dict[Hashable, _Bucket] = {}
        self._many = _MANY
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: Hashable, num_rows: int) -> None:
        """Let a request in that costs ``num_rows``, or refuse it and take nothing.

        Raises:
            RateLimited: it has to wait; the error says how long, if no other of the client comes before it.
        """
        with self._lock:
            now = self._clock()
            self._drop_full(now)
            rows = self._rows(client, now)
            missing = min(num_rows, self._limit.burst) - rows
            if missing <= _ROUNDING:
                self._buckets[client] = _Bucket(rows - num_rows, now)
                return
        rate, burst = self._limit.rows_per_second, self._limit.burst
        retry_after_ms = max(1, math.ceil(1e3 * missing / rate))
        raise RateLimited(
            f"the request runs {num_rows} rows of the UNet, and this client has {max(0, math.floor(rows))} left of "
            f"{burst:g}, with {rate:g} more each second; try again in {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )

    @contextmanager
    def paid(self, client: Hashable, num_rows: int) -> Iterator[None]:
        """Take a request's rows for what is done inside, and give them back where that raises. Raises RateLimited."""
        self.take(client, num_rows)
        try:
            yield
        except BaseException:
            self.give_back(client, num_rows)
            raise

    def give_back(self, client: Hashable, num_rows: int) -> None:
        """Put rows back that were taken for a request which was refused after all."""
        with self._lock:
            if bucket := self._buckets.get(client):
                bucket.rows += num_rows

    def _rows(self, client: Hashable, now: float) -> float:
        """Return what a client's bucket holds; less than nothing is a debt."""
        bucket = self._buckets.get(client)
        if bucket is None:
            return self._limit.burst
        return min(self._limit.burst, bucket.rows + (now - bucket.filled) * self._limit.rows_per_second)

    def _drop_full(self, now: float) -> None:
        """Forget full buckets, which are as good as none, each time that there are twice as many as were left."""
        if len(self._buckets) < self._many:
            return
        self._buckets = {c: bucket for c, bucket in self._buckets.items() if self._rows(c, now) < self._limit.burst}
        self._many = max(_MANY, 2 * len(self._buckets))
