"""How a request ends: the error of one whose images left unfinished, and who hears what is known of it then."""

import logging

from mezzotint.engines.errors import Cancelled, DeadlineExpired, EngineFailed
from mezzotint.server.job import Job
from mezzotint.server.logs import about, log_ending
from mezzotint.server.observer import Ending, Observer
from mezzotint.server.pictures import timings
from mezzotint.server.ticket import Departure, Outcome

logger = logging.getLogger(__name__)


def report(observer: Observer, model: str, job: Job, now: float, error: Exception | None) -> None:
    """Write a request's line in the log and tell the observer that it ends at ``now``.

    A failure of either is only logged: the request's caller waits for its ending. ``error`` is None of a good one.
    """
    try:
        ending = _ending_of(model, job, now, error)
        log_ending(logger, ending, job.request)
        observer.ended(ending)
    except Exception:
        logger.exception("request %s: its ending was not reported", job.request_id, extra=about(job.request_id))


def _ending_of(model: str, job: Job, now: float, error: Exception | None) -> Ending:
    images = job.ticket.images if job.ticket else ()
    return Ending(
        model=model,
        request_id=job.request_id,
        arrival=job.arrival,
        started=job.started,
        ended=now,
        spent=timings(images, arrival=job.arrival, started=job.started, now=now),
        windows=dict(job.windows),  # the loop's thread may be adding to it
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
