"""A scheduler of usual limits, and its calls made as engines would make them."""

from typing import Any

from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL, SHALLOW
from mezzotint.server.scheduler import Scheduler

MAX_ROWS = {FULL: 8, SHALLOW: 8}


def make_scheduler(**changes: Any) -> Scheduler:
    return Scheduler(**{"max_rows": MAX_ROWS, "max_queue_size": 100, "max_started_images": 16} | changes)


def run_call(scheduler: Scheduler, now: float = 0.0) -> list[Any]:
    """Make the next call as an engine would, and return its images."""
    batch = scheduler.next_batch(now)
    for image in batch.images:
        image.run()
    scheduler.settle(batch, now)
    return list(batch.images)


def run_out(scheduler: Scheduler, now: float = 0.0) -> list[tuple[Stage, list[Any]]]:
    calls = []
    while (stage := scheduler.next_stage(now)) is not None:
        calls.append((stage, run_call(scheduler, now)))
    scheduler.drop(now)
    return calls
