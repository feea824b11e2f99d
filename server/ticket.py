"""A request in the scheduler, its images there, and how they leave. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass
from enum import StrEnum

from mezzotint.engines.image import Image
from mezzotint.server.costs import Work
from mezzotint.server.order import Place


class Outcome(StrEnum):
    """How an image left."""

    FINISHED = "finished"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Ticket:
    """A request in the scheduler.

    Attributes:
        arrival: seconds of the scheduler's clock, as is ``deadline``, which is None without one.
        client: who sent it.
        position: how many images waited before its own when it came.
        started: when its first image was encoded; None until then.
    """

    images: tuple[Image, ...]
    arrival: float
    deadline: float | None
    client: str
    position: int
    cancelled: bool = False
    started: float | None = None

    def unwanted(self, now: float) -> Outcome | None:
        """Return why its images must not run any more, or None."""
        if self.cancelled:
            return Outcome.CANCELLED
        return Outcome.EXPIRED if self.deadline is not None and self.deadline <= now else None


@dataclass(slots=True)
class Entry:
    """An image in the scheduler.

    Attributes:
        ticket: its request.
        place: what its order follows from.
        work: what is left of it.
        first_step: the signature of its first denoising call.
    """

    ticket: Ticket
    place: Place
    work: Work
    first_step: Hashable


@dataclass(frozen=True, slots=True)
class Departure:
    """An image that has left the scheduler; it never comes back."""

    image: Image
    ticket: Ticket
    outcome: Outcome
