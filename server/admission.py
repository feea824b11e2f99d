"""Who is let in: one sentence for whoever is not. Pure; imports engines alone."""

from collections.abc import Sequence

from mezzotint.engines.errors import DeadlineTooSoon, InvalidRequest, QueueFull
from mezzotint.engines.image import Image


def check_images(images: Sequence[Image], max_rows: int, max_queue_size: int) -> None:
    """Raise InvalidRequest for images that no call and no queue of this server will ever hold."""
    widest = max((image.num_rows for image in images), default=0)
    if not widest or widest > max_rows:
        raise InvalidRequest(
            f"images of {widest} rows: must be 1 to {max_rows}; leave out parts of the prompt, or ask for guidance 1"
        )
    if len(images) > max_queue_size:
        raise InvalidRequest(f"num_images={len(images)}: this server's queue holds {max_queue_size}; ask for fewer")


def queue_full(num_images: int, num_waiting: int, max_queue_size: int, image_seconds: float) -> QueueFull:
    """Return the refusal of so many images: when to try again follows from the seconds between images that leave."""
    num_over = max(1, num_waiting + num_images - max_queue_size)
    retry_after_ms = max(1, round(1e3 * num_over * image_seconds))
    return QueueFull(
        f"the queue is full: {num_waiting} of {max_queue_size} images wait; try again in {retry_after_ms} ms",
        retry_after_ms=retry_after_ms,
    )


def check_deadline(left: float, alone: float, finish: float) -> None:
    """Refuse what will be late: all are seconds from now.

    Args:
        left: until the deadline.
        alone: until the request would be done on an empty server.
        finish: until it will be done behind those who are here.

    Raises:
        InvalidRequest: it would be late on an empty server.
        DeadlineTooSoon: it will be late here and now.
    """
    if alone > left:
        raise InvalidRequest(
            f"the deadline is in {left:.3g} s, but the request takes {alone:.3g} s on an empty server; "
            "allow it more time, or ask for fewer steps"
        )
    if finish > left:
        retry_after_ms = max(1, round(1e3 * (finish - left)))
        raise DeadlineTooSoon(
            f"the deadline is in {left:.3g} s, but the request would be done in {finish:.3g} s behind those that are "
            f"here; allow it more time, or try again in {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )


def check_priority(priority: int, levels: int) -> int:
    """Return a request's level, 1 to ``levels``; 0 is the middle one. Raises InvalidRequest."""
    default = (levels + 1) // 2
    if not 0 <= priority <= levels:
        raise InvalidRequest(f"priority={priority}: must be 1, which goes first, to {levels}, or 0 for {default}")
    return priority or default
