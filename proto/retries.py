"""When a request that failed is sent again, for both clients. gRPC itself never repeats a stream that has begun.

The same id and the same seed go out again: a server that still paints it lets the client join, and any other paints the
same picture.
"""

import random
import time
from collections.abc import Callable

import grpc

from mezzotint.proto.errors import MezzotintClientError, invalid
from mezzotint.proto.results import Event, Picture

_FIRST_S = 0.5
_FACTOR = 2.0
_MOST_DOUBLINGS = 10
_MOST_S = 10.0
_JITTER = 0.2  # the share by which a wait differs at most, so that clients that failed together do not return together


class Attempts:
    """How often one request may still be sent, and how long to wait before.

    Args:
        retries: how often it may be sent again.
        timeout: seconds for all attempts and waits; None is any time.
        clock: seconds, never going back.
        draw: a number between two others, at random.

    Raises:
        MezzotintClientError: ``retries`` is below 0.
    """

    def __init__(
        self,
        retries: int,
        timeout: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if retries < 0:
            raise invalid(f"retries={retries}: must be 0 or more")
        self._retries = retries
        self._used = 0
        self._clock = clock
        self._draw = draw
        self._until = None if timeout is None else clock() + timeout
        self._pictures: set[int] = set()

    @property
    def timeout(self) -> float | None:
        """The seconds that are left for the next attempt; None is any time."""
        return None if self._until is None else max(0.0, self._until - self._clock())

    def wait_after(self, error: MezzotintClientError) -> float:
        """Return the seconds until the next attempt, longer each time. Raises ``error``.

        Only a server that is away, or one that says when it has room, is asked again; not before it says. Many may have
        been told the same, and one has the room, so that the others' waits grow too.
        """
        asked = error.retry_after_ms
        again = error.code is grpc.StatusCode.UNAVAILABLE or asked is not None
        if self._used == self._retries or not again or (asked is not None and asked < 0):
            raise error
        first, least = (_FIRST_S, 1 - _JITTER) if asked is None else (asked / 1e3, 1.0)
        grown = first * _FACTOR ** min(self._used, _MOST_DOUBLINGS)
        seconds = max(first, min(_MOST_S, grown)) * self._draw(least, 1 + _JITTER)
        if self.timeout is not None and seconds >= self.timeout:
            raise error
        self._used += 1
        return seconds

    def is_new(self, event: Event) -> bool:
        """Return whether the caller has not had it: a picture that an earlier attempt brought is not given twice."""
        if not isinstance(event, Picture):
            return True
        known = event.image_index in self._pictures
        self._pictures.add(event.image_index)
        return not known
