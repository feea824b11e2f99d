"""The request scheduler: images on their way from call to call. Pure and synchronous; the clock is passed in.

Knows of an image which call is its next one, what that has in common with others', and whether it has begun: no gRPC,
no thread, no latents. One thread calls it (``server/loop.py``).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence

from mezzotint.engines.batch import Batch
from mezzotint.engines.errors import DeadlineExpired, MezzotintError, QueueFull
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.variants import FULL
from mezzotint.server.admission import check_deadline, check_images, queue_full
from mezzotint.server.costs import USUAL_ROWS, Costs, EvaluationCosts
from mezzotint.server.demand import Demand
from mezzotint.server.forecast import Forecast, Intervals, Pace, forecast
from mezzotint.server.order import Place, ordered
from mezzotint.server.policy import Policy, fcfs
from mezzotint.server.sharing import RowCap, next_call, next_step
from mezzotint.server.ticket import Departure, Entry, Outcome, Ticket


class Scheduler:
    """Images on their way through encode, denoise and decode.

    Finished images are decoded first, since that frees room and ends requests; else the policy's first image is
    denoised together with those of its signature. Which images those are is chosen among new ones too: a new one is
    encoded first if it has a place in that call, by the policy's order or because there is room.
    After a decoding call, which runs the decoder or one part of it, a denoising call goes first if one waits: images in
    the making never wait for more than one decoding call between two of theirs.

    Args:
        max_rows: the most rows of one UNet call, by the engine's variant; all rows of an image are in one call.
        row_cap: the most that gain something for images of one size, as is known at present; ``max_rows`` by default.
        max_queue_size: the most images that wait to be started.
        max_started_images: the most images that have begun and are not done, since each of them holds arrays.
        policy: makes the order from what has come lately; asked whenever images come.
        costs: what is known of the engines' time.
        admit_late: take in requests too whose deadlines will pass, as far as can be foreseen.

    Attributes:
        last_size: the last call's latent rows and columns.
        is_repeated: whether the last call was made of one image since those that shared it before failed with it.
    """

    def __init__(
        self,
        *,
        max_rows: Mapping[str, int],
        max_queue_size: int,
        max_started_images: int,
        policy: Callable[[Demand], Policy] = lambda _: fcfs,
        costs: Costs | None = None,
        admit_late: bool = False,
        row_cap: RowCap | None = None,
    ) -> None:
        self._max_rows = max_rows
        self._row_cap = row_cap or (lambda _, variant: max_rows[variant])
        self._max_queue_size = max_queue_size
        self._max_started_images = max_started_images
        self._make_policy = policy
        self._costs = costs or EvaluationCosts()
        self._admit_late = admit_late
        self._demand = Demand(max_rows[FULL] / USUAL_ROWS)
        self._pace = Pace()
        self._policy = policy(self._demand)
        self._places: dict[Image, Entry] = {}  # in the order of submission
        self._freed: dict[str, float] = {}  # when the last image of each client left that has others here
        self._running: tuple[Image, ...] = ()
        self._chosen: tuple[float, tuple[Image, ...]] | None = None  # when, and for which call, until something changes
        self._expected = self._handed_out = 0.0
        self._decoded_last = False
        self.last_size: tuple[int, int] | None = None
        self.is_repeated = False
        self._left: list[Departure] = []
        self._intervals = Intervals()

    @property
    def num_images(self) -> int:
        """The images that are here."""
        return len(self._places)

    @property
    def num_waiting(self) -> int:
        """The images that have not begun."""
        return sum(not image.has_begun for image in tuple(self._places))

    @property
    def num_started(self) -> int:
        """The images that hold arrays."""
        return self.num_images - self.num_waiting

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._places

    @property
    def knows_its_pace(self) -> bool:
        """Whether enough calls were seen to rely on forecasts."""
        return self._pace.is_known

    def can_submit(self, num_images: int) -> bool:
        """Whether the queue has room for so many images."""
        return self.num_waiting + num_images <= self._max_queue_size

    def submit(
        self,
        images: Sequence[Image],
        *,
        arrival: float,
        deadline: float | None = None,
        client: str = "",
        priority: int = 0,
    ) -> Ticket:
        """Take a request's images in; from here on each of them leaves exactly once.

        Args:
            images: they leave as one request.
            arrival: seconds of the scheduler's clock.
            deadline: on the same clock; None is none.
            client: who sent it; no client's images go before others' by their number.
            priority: images of smaller ones go first.

        Raises:
            QueueFull: the queue has no room for them now.
            DeadlineTooSoon: the deadline will have passed before those are done who are here.
            InvalidRequest: it has no room in any call or queue of this server, or no time on an empty one.
            DeadlineExpired: the deadline has passed already.
        """
        check_images(images, min(self._max_rows.values()), self._max_queue_size)
        if deadline is not None and deadline <= arrival:
            raise DeadlineExpired("the deadline had passed when the request arrived; allow it more time")
        if not self.can_submit(len(images)):
            raise self.queue_full(len(images))
        ticket = Ticket(tuple(images), arrival, deadline, client, position=self.num_waiting)
        self._enter(ticket, priority)
        try:
            self._check_deadline(ticket)
        except MezzotintError:
            for image in images:
                del self._places[image]
            raise
        self._demand.images_a_call = self._images_a_call(images[0])
        for image in images:
            self._demand.come(arrival, self._places[image].place.size)
        self._policy = self._make_policy(self._demand)
        return ticket

    def queue_full(self, num_images: int) -> QueueFull:
        """Return the refusal of so many images: when to try again follows from how fast images have been leaving."""
        return queue_full(num_images, self.num_waiting, self._max_queue_size, self._intervals.mean)

    def cancel(self, ticket: Ticket) -> None:
        """Take a request back: its images take part in no further call."""
        ticket.cancelled = True
        self._chosen = None

    def drop(self, now: float) -> None:
        """Let cancelled and expired images leave."""
        for image, entry in tuple(self._places.items()):
            outcome = entry.ticket.unwanted(now)
            if outcome is not None:
                self._leave(image, outcome)

    def next_stage(self, now: float) -> Stage | None:
        """Return the stage of the call that ``next_batch`` would choose; None where it would find nothing to do."""
        images = self._choose(now)
        self._chosen = now, images
        return images[0].stage if images else None

    def next_batch(self, now: float) -> Batch:
        """Choose the next call and hand it out until ``settle`` or ``fail``. Raises LookupError where there is none."""
        self.drop(now)
        chosen, self._chosen = self._chosen, None
        self._running = chosen[1] if chosen is not None and chosen[0] == now else self._choose(now)
        if not self._running:
            raise LookupError("no image waits for a call; ask next_stage first")
        first = self._running[0]
        stage, self.last_size, self.is_repeated = first.stage, first.call_size, first.is_alone
        if stage is not Stage.ENCODE:
            self._decoded_last = stage is Stage.DECODE
        for image in self._running:
            ticket = self._places[image].ticket
            ticket.started = now if ticket.started is None else ticket.started
        self._expected, self._handed_out = self._costs.call_seconds(self._running), now
        return Batch(self._running)

    def settle(self, batch: Batch, now: float) -> None:
        """Take a call's images back: those that are finished, cancelled or expired leave, others may join the next."""
        self._pace.note(self._expected, now - self._handed_out)
        for image in batch.images:
            entry = self._places[image]
            entry.work = self._costs.work_left(image)
            entry.place.left = entry.work.seconds
            image.is_alone = False
        finished = [image for image in batch.images if image.stage is Stage.DONE]
        for image in finished:
            self._freed[self._places[image].ticket.client] = now
            self._leave(image, Outcome.FINISHED)
        self._running = ()
        self.drop(now)
        self._intervals.note(len(finished), now, pause=self.idle)

    def fail(self, *, unchanged: bool = False) -> None:
        """Let the images leave whose call failed; several of a denoising call make it each alone, if ``unchanged``."""
        running, self._running = self._running, ()
        if unchanged and len(running) > 1 and running[0].stage is Stage.DENOISE:
            self._chosen = None
            for image in running:
                image.is_alone = True
            return
        for image in running:
            self._leave(image, Outcome.FAILED)

    def departures(self) -> list[Departure]:
        """Return the images that have left since the last call, each exactly once."""
        left, self._left = self._left, []
        return left

    def extend(self, ticket: Ticket, deadline: float | None) -> None:
        """Allow a request until another time; None is any."""
        ticket.deadline = deadline
        self._chosen = None
        for image in ticket.images:
            if image in self._places:
                self._places[image].place.deadline = math.inf if deadline is None else deadline

    def seconds_left(self, num_more: int = 0) -> float:
        """Return the engine time that all images here still are, and so many usual ones, at the present pace."""
        here = sum(entry.place.left for entry in tuple(self._places.values()))
        return self._pace.ratio * (here + num_more * self._demand.mean_size)

    def forecast(self, now: float) -> dict[Image, Forecast]:
        """Return when each image is done if nobody else comes, in the order in which they go."""
        here = self._in_order(now)
        ratio = self._pace.ratio
        if not here:
            return {}
        found = forecast(
            [self._places[image].work for image in here],
            [image.has_begun for image in here],
            min(self._images_a_call(here[0]), self._max_started_images),
            lambda num_images: self._costs.stretch(num_images, here[0]),
        )
        return {
            image: Forecast(each.start * ratio, each.finish * ratio) for image, each in zip(here, found, strict=True)
        }

    def _enter(self, ticket: Ticket, priority: int) -> None:
        deadline = math.inf if ticket.deadline is None else ticket.deadline
        self._chosen = None
        for image in ticket.images:
            work = self._costs.work_left(image)
            place = Place(ticket.arrival, deadline, priority, ticket.client, work.seconds, work.seconds)
            self._places[image] = Entry(ticket, place, work, next_step(image))

    def _check_deadline(self, ticket: Ticket) -> None:
        """Refuse a request that has entered and will be late, as far as is known of this machine's pace."""
        if ticket.deadline is None or self._admit_late or not self.knows_its_pace:
            return
        work, first = [self._places[image].work for image in ticket.images], ticket.images[0]
        slots = self._images_a_call(first)
        alone = forecast(work, [False] * len(work), slots, lambda num: self._costs.stretch(num, first))
        times = self.forecast(ticket.arrival)
        check_deadline(
            ticket.deadline - ticket.arrival,
            self._pace.ratio * max(each.finish for each in alone),
            max(times[image].finish for image in ticket.images),
        )

    def _images_a_call(self, like: Image) -> int:
        return max(1, self._row_cap(like, FULL) // USUAL_ROWS)

    def _leave(self, image: Image, outcome: Outcome) -> None:
        self._chosen = None
        ticket = self._places.pop(image).ticket
        self._left.append(Departure(image, ticket, outcome))
        if not any(entry.ticket.client == ticket.client for entry in self._places.values()):
            self._freed.pop(ticket.client, None)

    def _choose(self, now: float) -> tuple[Image, ...]:
        order, most = self._in_order(now), self._max_started_images
        return next_call(order, self._row_cap, most, decoded_last=self._decoded_last, step_of=self._step_of)

    def _step_of(self, image: Image) -> Hashable:
        return next_step(image) if image.has_begun else self._places[image].first_step

    def _in_order(self, now: float) -> list[Image]:
        """Return the images that still want to run, the policy's first first; ties as submitted."""
        wanted = [item for item in self._places.items() if item[1].ticket.unwanted(now) is None]
        places = [entry.place for _, entry in wanted]
        return [wanted[i][0] for i in ordered(places, self._policy, self._freed, now)]
