"""What one client has not taken yet. A client that reads slowly costs a bounded amount of memory for its progress."""

import asyncio
from collections import deque

from mezzotint.server.events import Event, Progress

MAX_PROGRESS = 100


class Outbox(asyncio.Queue[Event]):
    """A queue of events that forgets the oldest progress where more than ``MAX_PROGRESS`` waits.

    Pictures stay: whoever writes them to a client that takes nothing gives up in time (``Intake.write``). The event
    loop's own.
    """

    _queue: deque[Event]

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    def _init(self, maxsize: int) -> None:
        self._queue = deque()
        self._num_progress = 0

    def _put(self, item: Event) -> None:
        if self._closed:
            return
        self._queue.append(item)
        if not isinstance(item, Progress):
            return
        self._num_progress += 1
        if self._num_progress > MAX_PROGRESS:
            self._queue.remove(next(event for event in self._queue if isinstance(event, Progress)))
            self._num_progress -= 1

    def _get(self) -> Event:
        event = self._queue.popleft()
        self._num_progress -= isinstance(event, Progress)
        return event

    def close(self) -> None:
        """Forget everything, and whatever comes: the client is gone."""
        self._closed = True
        self._queue.clear()
