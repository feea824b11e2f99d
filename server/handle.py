"""A request in its caller's hand: taking it back, and allowing it more time. Knows no wire."""

from collections.abc import Callable

from mezzotint.server.job import Job
from mezzotint.server.loop import Command
from mezzotint.server.scheduler import Scheduler


class Handle:
    """A request that the core has taken in, in its caller's hand."""

    def __init__(self, job: Job, post: Callable[[Command], None], scheduler: Scheduler) -> None:
        self.request_id = job.request_id
        self._job = job
        self._post = post
        self._scheduler = scheduler

    def cancel(self) -> None:
        """Take the request back: its images leave before the next step, and its ending is ``Cancelled``."""
        self._job.cancelled = True
        self._post(self._withdraw)

    def extend(self, deadline: float | None) -> None:
        """Allow the request until ``deadline`` where that is later than its own; None is any time."""
        job = self._job
        job.deadline = None if deadline is None or job.deadline is None else max(deadline, job.deadline)
        if job.ticket is not None:
            job.ticket.deadline = job.deadline  # at once: a call may be running, at whose end deadlines are looked at
        self._post(self._allow)

    def _allow(self) -> None:
        if self._job.ticket is not None:
            self._scheduler.extend(self._job.ticket, self._job.deadline)

    def _withdraw(self) -> None:
        if self._job.ticket is not None:
            self._scheduler.cancel(self._job.ticket)
