"""How a request ends: the error of one whose images left unfinished, and what is known of it then."""

import logging

from mezzotint.engines.errors import Cancelled, DeadlineExpired, EngineFailed
from mezzotint.server.events import Timings
from mezzotint.server.job import Job
from mezzotint.server.logs import about
from mezzotint.server.observer import Ending
from mezzotint.server.ticket import Departure, Outcome

logger = logging.getLogger(__name__)


def ending_of(model: str, job: Job, spent: Timings, now: float, error: Exception | None) -> Ending:
    """Return what the log and the observers hear of a request that ends at ``now``; ``error`` is None of a good one."""
    return Ending(
        model=model,
        request_id=job.request_id,
        arrival=job.arrival,
        started=job.ticket.started if job.ticket else None,
        ended=now,
        spent=spent,
        windows=job.windows,
        error=error,
        traceparent=job.caller.traceparent,
    )


def cancelled() -> Cancelled:
    """Return the error of a request that was taken back."""
    return Cancelled("the request was cancelled before its last step")


def reason_of(departure: Departure, job: Job, failure: Exception | None) -> Exception:
    """Return the error of a request one of whose images left unfinished."""
    if departure.outcome is Outcome.CANCELLED:
        return cancelled()
    if departure.outcome is Outcome.EXPIRED:
        return DeadlineExpired(
            f"the deadline passed after {departure.image.step} of {departure.image.num_steps} steps; "
            "allow the request more time, or ask for fewer steps"
        )
    logger.error("request %s: its engine call failed", job.request_id, exc_info=failure, extra=about(job.request_id))
    return EngineFailed(f"request {job.request_id}: an engine failed; the server's log says why under that id")
