"""The request scheduler: which images share the next engine call. Pure and synchronous; the clock is passed in.

Knows images by ``stage``, ``variant``, ``signature``, ``num_rows`` and ``remaining`` alone: no gRPC, no thread, no
latents. One thread calls it (``server/loop.py``).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mezzotint.engines.errors import DeadlineExpired, InvalidRequest, QueueFull
from mezzotint.engines.image import Batch, Image, Stage
from mezzotint.engines.variants import FULL
from mezzotint.server.demand import Demand
from mezzotint.server.policy import Policy, fcfs

_FIRST_GUESS_SECONDS = 1.0
_FORGET = 0.2  # the share of a new interval in the running mean
_FEW = 2  # images that have an order
_USUAL_ROWS = 2  # of an image in a call: those of guidance


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
        position: how many images waited before its own when it came.
        started: when its first image was encoded; None until then.
    """

    images: tuple[Image, ...]
    arrival: float
    deadline: float | None
    position: int
    cancelled: bool = False
    started: float | None = None


@dataclass(frozen=True, slots=True)
class Departure:
    """An image that has left the scheduler; it never comes back."""

    image: Image
    ticket: Ticket
    outcome: Outcome


@dataclass(slots=True)
class _Place:
    """What the order of an image follows from: its ticket, and the seconds of work that it is, in all and left."""

    ticket: Ticket
    size: float
    left: float


class Scheduler:
    """Images on their way through encode, denoise and decode.

    Finished images are decoded first, since that frees room and ends requests; else the policy's first image is
    denoised together with those of its signature. Which images those are is chosen among new ones too: a new one is
    encoded first if it has a place in that call, by the policy's order or because there is room.
    After a decoding call, which runs the decoder or one part of it, a denoising call goes first if one waits: images in
    the making never wait for more than one decoding call between two of theirs.

    Args:
        max_rows: the most rows of one UNet call, by the engine's variant; all rows of an image are in one call.
        max_queue_size: the most images that wait to be started.
        max_started_images: the most images between encoding and decoding, since each of them holds arrays.
        policy: makes the order from what has come lately; asked whenever images come.
        seconds_left: the seconds of work that an image still is; its evaluations where nothing is known of their time.
    """

    def __init__(
        self,
        *,
        max_rows: Mapping[str, int],
        max_queue_size: int,
        max_started_images: int,
        policy: Callable[[Demand], Policy] = lambda _: fcfs,
        seconds_left: Callable[[Image], float] = lambda image: image.remaining,
    ) -> None:
        self._max_rows = max_rows
        self._max_queue_size = max_queue_size
        self._max_started_images = max_started_images
        self._make_policy = policy
        self._seconds_left = seconds_left
        self._demand = Demand(max_rows[FULL] / _USUAL_ROWS)
        self._policy = policy(self._demand)
        self._places: dict[Image, _Place] = {}  # in the order of submission
        self._running: tuple[Image, ...] = ()
        self._decoded_last = False
        self._left: list[Departure] = []
        self._image_seconds = _FIRST_GUESS_SECONDS
        self._last_finish: float | None = None

    @property
    def num_images(self) -> int:
        """The images that are here."""
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        """The images that have not been started."""
        return sum(image.stage is Stage.ENCODE for image in tuple(self._places))

    @property
    def num_started(self) -> int:
        """The images that hold arrays."""
        return self.num_images - self.num_waiting

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._places

    def can_submit(self, num_images: int) -> bool:
        """Whether the queue has room for so many images."""
        return self.num_waiting + num_images <= self._max_queue_size

    def submit(self, images: Sequence[Image], *, arrival: float, deadline: float | None = None) -> Ticket:
        """Take a request's images in; from here on each of them leaves exactly once.

        Raises:
            QueueFull: the queue has no room for them now.
            InvalidRequest: it never will, or an image's rows do not fit into a call.
            DeadlineExpired: the deadline has passed already.
        """
        widest, most = max((image.num_rows for image in images), default=0), min(self._max_rows.values())
        if not widest or widest > most:
            raise InvalidRequest(f"images of {widest} rows: must be 1 to {most}; lower the guidance to 1")
        if len(images) > self._max_queue_size:
            raise InvalidRequest(
                f"num_images={len(images)}: this server's queue holds {self._max_queue_size}; ask for fewer"
            )
        if deadline is not None and deadline <= arrival:
            raise DeadlineExpired("the deadline had passed when the request arrived; allow it more time")
        if not self.can_submit(len(images)):
            raise self.queue_full(len(images))
        ticket = Ticket(tuple(images), arrival, deadline, position=self.num_waiting)
        for image in images:
            seconds = self._seconds_left(image)
            self._demand.come(arrival, seconds)
            self._places[image] = _Place(ticket, seconds, seconds)
        self._policy = self._make_policy(self._demand)
        return ticket

    def queue_full(self, num_images: int) -> QueueFull:
        """Return the refusal of so many images: when to try again follows from how fast images have been leaving."""
        num_waiting = self.num_waiting
        num_over = max(1, num_waiting + num_images - self._max_queue_size)
        retry_after_ms = max(1, round(1e3 * num_over * self._image_seconds))
        return QueueFull(
            f"the queue is full: {num_waiting} of {self._max_queue_size} images wait; try again in {retry_after_ms} ms",
            retry_after_ms=retry_after_ms,
        )

    def cancel(self, ticket: Ticket) -> None:
        """Take a request back: its images take part in no further call."""
        ticket.cancelled = True

    def drop(self, now: float) -> None:
        """Let cancelled and expired images leave."""
        for image, place in tuple(self._places.items()):
            outcome = _unwanted(place.ticket, now)
            if outcome is not None:
                self._leave(image, outcome)

    def next_stage(self, now: float) -> Stage | None:
        """Return the stage of the call that ``next_batch`` would choose; None where it would find nothing to do."""
        images = self._choose(now)
        return images[0].stage if images else None

    def next_batch(self, now: float) -> Batch:
        """Choose the next call and hand it out until ``settle`` or ``fail``. Raises LookupError where there is none."""
        self.drop(now)
        self._running = self._choose(now)
        if not self._running:
            raise LookupError("no image waits for a call; ask next_stage first")
        stage = self._running[0].stage
        if stage is not Stage.ENCODE:
            self._decoded_last = stage is Stage.DECODE
        for image in self._running:
            ticket = self._places[image].ticket
            ticket.started = now if ticket.started is None else ticket.started
        return Batch(self._running)

    def settle(self, batch: Batch, now: float) -> None:
        """Take a call's images back: those that are finished, cancelled or expired leave, others may join the next."""
        for image in batch.images:
            self._places[image].left = self._seconds_left(image)
        finished = [image for image in batch.images if image.stage is Stage.DONE]
        for image in finished:
            self._leave(image, Outcome.FINISHED)
        if finished and self._last_finish is not None:
            seconds = max(0.0, now - self._last_finish) / len(finished)
            self._image_seconds += _FORGET * (seconds - self._image_seconds)
        self._running = ()
        self.drop(now)
        if finished:
            self._last_finish = None if self.idle else now

    def fail(self) -> None:
        """Let the images leave whose call failed; the others go on."""
        for image in self._running:
            self._leave(image, Outcome.FAILED)
        self._running = ()

    def departures(self) -> list[Departure]:
        """Return the images that have left since the last call, each exactly once."""
        left, self._left = self._left, []
        return left

    def _leave(self, image: Image, outcome: Outcome) -> None:
        self._left.append(Departure(image, self._places.pop(image).ticket, outcome))

    def _choose(self, now: float) -> tuple[Image, ...]:
        """Return the images of the next call, the first in order first."""
        order = self._in_order(now)
        waits = any(image.stage is Stage.DENOISE for image in order)
        decoding = next((image for image in order if image.stage is Stage.DECODE), None)
        if decoding is not None and not (self._decoded_last and waits):
            return (decoding,)
        places = self._max_started_images - sum(image.stage is not Stage.ENCODE for image in order)
        joint = self._joint([image for image in order if image.stage is not Stage.DECODE], places)
        new = tuple(image for image in joint if image.stage is Stage.ENCODE)
        return tuple(image for image in new if image.signature == new[0].signature) if new else joint

    def _joint(self, order: Sequence[Image], places: int) -> tuple[Image, ...]:
        """Return the first image and those behind it that share its call, new ones among them that shall join it.

        They are as many as fit and overtake nobody. A new image's first call is a full one; ``places`` of them may
        start.
        """
        chosen: list[Image] = []
        head: Image | None = None  # the first that has been started
        num_rows = 0
        for image in order:
            is_new = image.stage is Stage.ENCODE
            if is_new and not places:
                continue
            if not is_new and head is not None and image.signature != head.signature:
                continue
            most = self._max_rows[FULL if is_new else image.variant]
            if num_rows + image.num_rows > most:
                break
            chosen.append(image)
            num_rows += image.num_rows
            places -= is_new
            head = head or (None if is_new else image)
        return tuple(chosen)

    def _in_order(self, now: float) -> list[Image]:
        """Return the images that still want to run, the policy's first first; ties as submitted."""
        wanted = [entry for entry in self._places.items() if _unwanted(entry[1].ticket, now) is None]
        if len(wanted) < _FEW:
            return [image for image, _ in wanted]
        table = np.array([(p.ticket.arrival, p.size, p.left, _deadline(p.ticket)) for _, p in wanted])
        arrival, size, left, deadline = table.T
        values = self._policy(arrival, size, left, deadline, now)
        return [wanted[i][0] for i in np.argsort(values, kind="stable")]


def _deadline(ticket: Ticket) -> float:
    return math.inf if ticket.deadline is None else ticket.deadline


def _unwanted(ticket: Ticket, now: float) -> Outcome | None:
    """Return why a request's images must not run any more, or None."""
    if ticket.cancelled:
        return Outcome.CANCELLED
    return Outcome.EXPIRED if ticket.deadline is not None and ticket.deadline <= now else None
