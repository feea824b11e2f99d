"""What one client has not taken yet. A client that reads slowly, or never, costs a bounded amount of memory."""

import asyncio
import math
from collections import deque
from collections.abc import Callable

from mezzotint.engines.errors import NotTaken
from mezzotint.server.events import Event, Failed, Picture, Progress

MAX_PROGRESS = 100


class Outbox(asyncio.Queue[Event]):
    """A queue of events that forgets the oldest progress where more than ``MAX_PROGRESS`` waits.

    Pictures stay for ``unread_seconds`` after the client has last taken something; then all that waits is forgotten,
    and the ending is ``NotTaken``. The event loop's own.

    Args:
        unread_seconds: how long that is.
    """

    _queue: deque[Event]

    def __init__(self, unread_seconds: float = math.inf) -> None:
        super().__init__()
        self.on_given_up: Callable[[], None] = lambda: None
        """Called once, when the client's pictures are forgotten."""
        self._unread_seconds = unread_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._given_up = False

    def _init(self, maxsize: int) -> None:
        self._queue = deque()
        self._num_progress = self._num_pictures = 0

    def _put(self, item: Event) -> None:
        if self._given_up:
            return
        self._queue.append(item)
        if isinstance(item, Picture):
            self._num_pictures += 1
            self._timer = self._timer or self._begun()
        if not isinstance(item, Progress):
            return
        self._num_progress += 1
        if self._num_progress > MAX_PROGRESS:
            self._queue.remove(next(event for event in self._queue if isinstance(event, Progress)))
            self._num_progress -= 1

    def _get(self) -> Event:
        event = self._queue.popleft()
        self._num_progress -= isinstance(event, Progress)
        self._num_pictures -= isinstance(event, Picture)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = self._begun() if self._num_pictures else None
        return event

    def close(self) -> None:
        """Forget everything: the client is gone."""
        self._given_up = True
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _begun(self) -> asyncio.TimerHandle | None:
        if math.isinf(self._unread_seconds):
            return None
        return asyncio.get_running_loop().call_later(self._unread_seconds, self._give_up)

    def _give_up(self) -> None:
        num = self._num_pictures
        self.close()
        self._queue.append(
            Failed(
                NotTaken(
                    f"{num} finished pictures were not taken for {self._unread_seconds:g} s, and are forgotten; read "
                    "the stream, or ask for them again"
                )
            )
        )
        self.on_given_up()
