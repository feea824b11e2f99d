"""The requests that a core has taken in and that have not ended, and whether it takes more. Any thread may ask.

Knows no scheduler and no engine.
"""

import threading
from collections.abc import Callable, Iterator

from mezzotint.server.job import Job, Worker


class Register:
    """Who is open, each with the worker that does its pieces, under one lock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._workers: dict[Job, Worker] = {}
        self._num_entering = 0
        self._closed = False

    def __len__(self) -> int:
        return len(self._workers)

    def __iter__(self) -> Iterator[Job]:
        """Go over those that are open now; others may come and go meanwhile."""
        return iter(tuple(self._workers))

    @property
    def num_entering(self) -> int:
        """The requests whose images the scheduler has not seen yet."""
        return self._num_entering

    @property
    def closed(self) -> bool:
        """Whether no more requests are taken in."""
        return self._closed

    def enter(self, job: Job, worker: Worker, check: Callable[[int], None]) -> None:
        """Take a request in.

        Args:
            job: the request.
            worker: does its pieces.
            check: gets how many requests are entering, this one among them; whatever it raises refuses the request.
        """
        with self._changed:
            check(self._num_entering + 1)
            self._num_entering += 1
            self._workers[job] = worker

    def entered(self) -> None:
        """Note that the scheduler has a request's images, or that there will be none; once for each that entered."""
        with self._changed:
            self._num_entering -= 1

    def post(self, job: Job, piece: Callable[[], None]) -> None:
        """Have a request's worker do a piece; does not wait, and does nothing for a request that has ended."""
        worker = self._workers.get(job)
        if worker is not None:
            worker.post(piece)

    def leave(self, job: Job) -> None:
        """Note that a request has ended."""
        with self._changed:
            self._workers.pop(job, None)
            self._changed.notify_all()

    def close(self) -> None:
        """Take in no more."""
        with self._changed:
            self._closed = True

    def wait(self, timeout: float) -> bool:
        """Wait until all have ended; returns whether they have, after ``timeout`` seconds at the latest."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._workers, timeout)
