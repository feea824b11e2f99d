"""What one client has not taken yet. A client that reads slowly, or never, costs a bounded amount of memory."""

import asyncio
from collections import deque

from mezzotint.server.events import Event, Progress

MAX_PROGRESS = 100


class Outbox(asyncio.Queue[Event]):
    """A queue of events that forgets the oldest progress where more than ``MAX_PROGRESS`` waits; pictures stay."""

    _queue: deque[Event]

    def _init(self, maxsize: int) -> None:
        self._queue = deque()
        self._num_progress = 0

    def _put(self, item: Event) -> None:
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
