"""Whatever is submitted, cancelled and failed, the scheduler keeps its rules."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mezzotint.engines.errors import DeadlineExpired, InvalidRequest, QueueFull
from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL, SHALLOW
from mezzotint.server.scheduler import Scheduler
from mezzotint.server.ticket import Departure, Outcome, Ticket
from tests.fakes import FakeImage
from tests.server.scheduling import run_call

an_evaluation = st.tuples(st.sampled_from([FULL, SHALLOW]), st.integers(1, 3))
a_request = st.fixed_dictionaries(
    {
        "num_images": st.integers(1, 4),
        "calls": st.lists(an_evaluation, min_size=1, max_size=4),
        "parts": st.integers(1, 3),
        "size": st.sampled_from([64, 128]),
        "seconds": st.none() | st.integers(0, 12),
    }
)
an_action = st.one_of(
    st.tuples(st.just("submit"), a_request),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("fail"), st.none()),
    st.tuples(st.just("call"), st.integers(1, 3)),
)


def after_text(image: FakeImage) -> tuple[int, str]:
    """What an image's first denoising call must have in common with another's."""
    return image.size, image.calls[0][0]


class Bench:
    """A scheduler, all that was submitted to it and all that left it; ``call`` checks the rules."""

    def __init__(self, max_rows: dict[str, int], max_queue: int, max_started: int) -> None:
        self.max_rows, self.max_queue, self.max_started = max_rows, max_queue, max_started
        self.scheduler = Scheduler(max_rows=max_rows, max_queue_size=max_queue, max_started_images=max_started)
        self.tickets: list[Ticket] = []
        self.left: list[Departure] = []
        self.held_up = 0  # the decoding calls since images in the making had theirs

    def submit(self, what: dict[str, Any], now: float) -> None:
        images = [
            FakeImage(calls=tuple(what["calls"]), size=what["size"], parts=what["parts"])
            for _ in range(what["num_images"])
        ]
        deadline = None if what["seconds"] is None else now + what["seconds"]
        try:
            self.tickets.append(self.scheduler.submit(images, arrival=now, deadline=deadline))  # type: ignore[arg-type]
        except (QueueFull, InvalidRequest, DeadlineExpired):
            assert len(images) + self.scheduler.num_waiting > self.max_queue or deadline == now

    def fail(self, now: float) -> None:
        before = {image: image.stage for image in self.wanted(now)}
        self.count(self.scheduler.next_batch(now).images[0].stage, before.values())
        self.scheduler.fail()
        self.left.extend(self.scheduler.departures())

    def call(self, now: float) -> None:
        wanted = self.wanted(now)
        before = {image: (image.stage, image.variant, image.num_rows, image.signature) for image in wanted}
        images = run_call(self.scheduler, now)
        self.left.extend(self.scheduler.departures())
        stage, variant, _, signature = before[images[0]]
        peers = [image for image in wanted if before[image][3] == signature]
        if stage is Stage.ENCODE:  # of those, all that go on together
            peers = [image for image in peers if after_text(image) == after_text(images[0])]
        assert images == peers[: len(images)]  # of one signature, first come, first served
        assert sum(before[image][2] for image in images) <= self.max_rows.get(variant, 8)
        assert self.scheduler.num_started <= self.max_started
        assert stage is not Stage.DECODE or len(images) == 1
        self.count(stage, [stage for stage, *_ in before.values()])
        assert self.held_up <= 1

    def wanted(self, now: float) -> list[Any]:
        """The images that still want to run, in the order of submission."""
        gone = {departure.image for departure in self.left}
        here = {image: ticket for ticket in self.tickets for image in ticket.images if image not in gone}
        return [i for i, t in here.items() if not t.cancelled and (t.deadline is None or t.deadline > now)]

    def count(self, stage: Stage, stages: Iterable[Stage]) -> None:
        """Count a call of ``stage``, whether it failed or not, while images of ``stages`` were there."""
        waits = Stage.DENOISE in stages
        self.held_up = {Stage.DENOISE: 0, Stage.DECODE: self.held_up + 1}.get(stage, self.held_up) if waits else 0


A_SMALL = {"num_images": 1, "calls": [(FULL, 1)], "parts": 1, "size": 64, "seconds": None}
A_SECOND_LATE = {"num_images": 1, "calls": [(FULL, 1)], "parts": 1, "size": 64, "seconds": 3}


@settings(max_examples=300, deadline=None)
@example(  # the only started image expires while another waits for its room
    [("submit", A_SECOND_LATE), ("submit", A_SECOND_LATE | {"seconds": None}), ("call", 1), ("fail", None)], 3, 3, 1, 2
)
@example(  # one of another size stands between two that begin together
    [("submit", A_SMALL), ("submit", A_SMALL | {"size": 128}), ("submit", A_SMALL), ("call", 3)], 8, 8, 6, 8
)
@given(st.lists(an_action, max_size=40), *(st.integers(3, 8),) * 2, st.integers(1, 6), st.integers(1, 8))
def test_whatever_happens_every_image_ends_exactly_once_and_no_call_breaks_a_rule(
    actions: list[tuple[str, Any]], full_rows: int, shallow_rows: int, max_started: int, max_queue: int
) -> None:
    bench, now = Bench({FULL: full_rows, SHALLOW: shallow_rows}, max_queue, max_started), 0.0
    scheduler = bench.scheduler
    for kind, what in actions:
        now += 1.0
        if kind == "submit":
            bench.submit(what, now)
        elif kind == "cancel" and bench.tickets:
            scheduler.cancel(bench.tickets[what % len(bench.tickets)])
        elif kind == "fail" and scheduler.next_stage(now) is not None:
            bench.fail(now)
        elif kind == "call":
            for _ in range(what):
                if scheduler.next_stage(now) is not None:
                    bench.call(now)
    while scheduler.next_stage(now) is not None:
        bench.call(now)
    scheduler.drop(now)
    bench.left.extend(scheduler.departures())
    assert scheduler.idle
    assert Counter(d.image for d in bench.left) == Counter(image for t in bench.tickets for image in t.images)
    for departure in bench.left:
        assert (departure.outcome is Outcome.FINISHED) == (departure.image.stage is Stage.DONE)
