from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzotint.engines.errors import DeadlineExpired, InvalidRequest, QueueFull
from mezzotint.engines.image import Stage
from mezzotint.server.scheduler import Outcome, Scheduler

MAX_ROWS = 8


@dataclass(eq=False)
class FakeImage:
    """What the scheduler knows of an image; ``settings`` stands for all that it must not look at."""

    num_rows: int = 2
    remaining: int = 3
    size: int = 64
    settings: Any = None
    stage: Stage = Stage.ENCODE
    ran: list[Stage] = field(default_factory=list)

    @property
    def signature(self) -> tuple[Stage, int]:
        return (self.stage, self.size)


def make_scheduler(**changes: Any) -> Scheduler:
    return Scheduler(**{"max_rows": MAX_ROWS, "max_queue_size": 100, "max_started_images": 16} | changes)


def run_call(scheduler: Scheduler, now: float = 0.0) -> list[Any]:
    """Make the next call as an engine would, and return its images."""
    batch = scheduler.next_batch(now)
    for image in batch.images:
        image.ran.append(image.stage)
        if image.stage is Stage.ENCODE:
            image.stage = Stage.DENOISE
        elif image.stage is Stage.DENOISE:
            image.remaining -= 1
            image.stage = Stage.DENOISE if image.remaining else Stage.DECODE
        else:
            image.stage = Stage.DONE
    scheduler.settle(batch, now)
    return list(batch.images)


def run_out(scheduler: Scheduler, now: float = 0.0) -> list[tuple[Stage, list[Any]]]:
    calls = []
    while (stage := scheduler.next_stage(now)) is not None:
        calls.append((stage, run_call(scheduler, now)))
    scheduler.drop(now)
    return calls


def test_an_image_is_encoded_denoised_and_decoded_and_then_leaves() -> None:
    scheduler = make_scheduler()
    image = FakeImage(remaining=2)
    scheduler.submit([image], arrival=0.0)
    run_out(scheduler)
    assert image.ran == [Stage.ENCODE, Stage.DENOISE, Stage.DENOISE, Stage.DECODE]
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(image, Outcome.FINISHED)]
    assert scheduler.idle
    assert scheduler.departures() == []


def test_requests_of_different_steps_samplers_and_guidance_share_calls() -> None:
    scheduler = make_scheduler()
    images = [
        FakeImage(num_rows=2, remaining=5, settings=("ddim", 7.5)),
        FakeImage(num_rows=1, remaining=2, settings=("heun", 1.0)),
        FakeImage(num_rows=2, remaining=3, settings=("euler_a", 4.0)),
    ]
    for image in images:
        scheduler.submit([image], arrival=0.0)
    calls = run_out(scheduler)
    assert [len(call) for stage, call in calls if stage is Stage.DENOISE] == [3, 3, 2, 1, 1]


def test_a_request_that_comes_later_joins_at_the_next_step() -> None:
    scheduler = make_scheduler()
    first, second = FakeImage(remaining=4), FakeImage(remaining=4)
    scheduler.submit([first], arrival=0.0)
    run_call(scheduler)
    assert run_call(scheduler) == [first]
    scheduler.submit([second], arrival=1.0)
    assert run_call(scheduler) == [second]  # it is encoded
    assert run_call(scheduler) == [first, second]


def test_an_image_that_does_not_fit_into_the_next_call_is_not_started() -> None:
    scheduler = make_scheduler()
    images = [FakeImage() for _ in range(5)]
    scheduler.submit(images, arrival=0.0)
    assert run_call(scheduler) == images[:4]
    assert run_call(scheduler) == images[:4]
    assert (scheduler.num_started, scheduler.num_waiting) == (4, 1)


def test_finished_images_are_decoded_one_by_one_before_anything_else() -> None:
    scheduler = make_scheduler()
    images = [FakeImage(remaining=1), FakeImage(remaining=1), FakeImage(remaining=3)]
    scheduler.submit(images, arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    scheduler.submit([FakeImage()], arrival=1.0)
    assert run_call(scheduler) == images[:1]
    assert run_call(scheduler) == images[1:2]
    assert scheduler.next_stage(0.0) is Stage.ENCODE


def test_no_more_images_are_started_than_may_hold_arrays() -> None:
    scheduler = make_scheduler(max_started_images=3)
    scheduler.submit([FakeImage(num_rows=1) for _ in range(8)], arrival=0.0)
    while scheduler.next_stage(0.0) is not None:
        run_call(scheduler)
        assert scheduler.num_started <= 3
    assert scheduler.idle


def test_the_oldest_images_size_goes_first_and_no_size_starves() -> None:
    scheduler = make_scheduler()
    wide = FakeImage(size=128, remaining=2)
    scheduler.submit([wide], arrival=0.0)
    run_call(scheduler)
    later = [FakeImage(size=64) for _ in range(20)]
    for i, image in enumerate(later):
        scheduler.submit([image], arrival=1.0 + i)
    order = [call for stage, call in run_out(scheduler) if stage is Stage.DENOISE]
    assert order[:2] == [[wide], [wide]]


def test_a_smaller_image_does_not_overtake_one_of_its_size_that_does_not_fit() -> None:
    scheduler = make_scheduler(max_rows=3)
    first, second, third = FakeImage(num_rows=2), FakeImage(num_rows=2), FakeImage(num_rows=1)
    for image in (first, second, third):
        image.stage = Stage.DENOISE
        scheduler.submit([image], arrival=0.0)
    assert run_call(scheduler) == [first]


def test_a_full_queue_refuses_with_a_time_to_try_again() -> None:
    scheduler = make_scheduler(max_queue_size=4)
    scheduler.submit([FakeImage() for _ in range(3)], arrival=0.0)
    assert scheduler.can_submit(1)
    assert not scheduler.can_submit(2)
    with pytest.raises(QueueFull, match="3 of 4 images wait; try again in 1000 ms") as refusal:
        scheduler.submit([FakeImage(), FakeImage()], arrival=0.0)
    assert refusal.value.retry_after_ms == 1000
    assert scheduler.num_images == 3


def test_the_time_to_try_again_follows_from_how_fast_images_leave() -> None:
    scheduler = make_scheduler(max_queue_size=60, max_rows=2)
    scheduler.submit([FakeImage(remaining=1) for _ in range(60)], arrival=0.0)
    now = 0.0
    for _ in range(150):
        now += 2.0
        run_call(scheduler, now)  # three calls an image
    assert scheduler.queue_full(61).retry_after_ms == pytest.approx(6000 * (scheduler.num_waiting + 1), rel=0.02)


def test_a_request_larger_than_the_queue_is_wrong_rather_than_early() -> None:
    with pytest.raises(InvalidRequest, match="num_images=5: this server's queue holds 4; ask for fewer"):
        make_scheduler(max_queue_size=4).submit([FakeImage() for _ in range(5)], arrival=0.0)


def test_a_deadline_that_has_passed_is_refused_at_admission() -> None:
    with pytest.raises(DeadlineExpired, match="had passed when the request arrived"):
        make_scheduler().submit([FakeImage()], arrival=5.0, deadline=5.0)


def test_an_image_leaves_between_steps_when_its_deadline_passes() -> None:
    scheduler = make_scheduler()
    late, other = FakeImage(remaining=9), FakeImage(remaining=9)
    scheduler.submit([late], arrival=0.0, deadline=3.0)
    scheduler.submit([other], arrival=0.0)
    run_call(scheduler, 1.0)
    assert run_call(scheduler, 2.0) == [late, other]
    assert run_call(scheduler, 3.0) == [other]
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(late, Outcome.EXPIRED)]


def test_a_cancelled_request_leaves_before_the_next_step() -> None:
    scheduler = make_scheduler()
    gone, other = FakeImage(remaining=9), FakeImage(remaining=9)
    ticket = scheduler.submit([gone], arrival=0.0)
    scheduler.submit([other], arrival=0.0)
    run_call(scheduler)
    run_call(scheduler)
    scheduler.cancel(ticket)
    assert run_call(scheduler) == [other]
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(gone, Outcome.CANCELLED)]


def test_a_failed_call_takes_its_own_images_along_and_no_others() -> None:
    scheduler = make_scheduler(max_rows=2)
    failing, other = FakeImage(), FakeImage()
    scheduler.submit([failing], arrival=0.0)
    scheduler.submit([other], arrival=0.0)
    scheduler.next_batch(0.0)
    scheduler.fail()
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(failing, Outcome.FAILED)]
    run_out(scheduler)
    assert other.stage is Stage.DONE


def test_there_is_no_batch_where_there_is_nothing_to_do() -> None:
    scheduler = make_scheduler()
    assert scheduler.next_stage(0.0) is None
    with pytest.raises(LookupError, match="ask next_stage first"):
        scheduler.next_batch(0.0)


def test_an_image_of_more_rows_than_a_call_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="images of 9 rows: must be 1 to 8"):
        make_scheduler().submit([FakeImage(num_rows=9)], arrival=0.0)


def test_another_policy_changes_the_order_and_nothing_else() -> None:
    scheduler = make_scheduler(max_rows=2, policy=lambda arrival, size, remaining, deadline, now: remaining)
    long, short = FakeImage(remaining=9), FakeImage(remaining=1)
    scheduler.submit([long], arrival=0.0)
    scheduler.submit([short], arrival=1.0)
    assert run_call(scheduler) == [short]
    run_out(scheduler)
    assert Counter(d.outcome for d in scheduler.departures()) == {Outcome.FINISHED: 2}


a_request = st.fixed_dictionaries(
    {
        "num_images": st.integers(1, 4),
        "num_rows": st.integers(1, 3),
        "remaining": st.integers(1, 4),
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


@settings(max_examples=300, deadline=None)
@given(st.lists(an_action, max_size=40), st.integers(3, 8), st.integers(1, 6), st.integers(1, 8))
def test_whatever_happens_every_image_ends_exactly_once_and_no_call_breaks_a_rule(
    actions: list[tuple[str, Any]], max_rows: int, max_started: int, max_queue: int
) -> None:
    scheduler = Scheduler(max_rows=max_rows, max_queue_size=max_queue, max_started_images=max_started)
    tickets, left, now = [], [], 0.0

    def call() -> None:
        gone = {d.image for d in left}
        order = [image for ticket in tickets for image in ticket.images if image not in gone]
        waiting = {image: (image.stage, image.signature) for image in order}
        images = run_call(scheduler, now)
        left.extend(scheduler.departures())
        assert len({waiting[image][1] for image in images}) == 1
        assert len(set(images)) == len(images)
        for image in images:
            ticket = next(t for t in tickets if image in t.images)
            assert not ticket.cancelled
            assert ticket.deadline is None or ticket.deadline > now
        assert sum(image.num_rows for image in images) <= max_rows
        assert scheduler.num_started <= max_started
        stage, signature = waiting[images[0]]
        peers = [image for image in order if waiting[image] == (stage, signature) and image not in gone]
        wanted = [i for i in peers if i in images or i not in {d.image for d in left}]
        assert images == wanted[: len(images)]  # first come, first served
        if stage is Stage.DECODE:
            assert len(images) == 1

    for kind, what in actions:
        now += 1.0
        if kind == "submit":
            images = [
                FakeImage(num_rows=what["num_rows"], remaining=what["remaining"], size=what["size"])
                for _ in range(what["num_images"])
            ]
            deadline = None if what["seconds"] is None else now + what["seconds"]
            try:
                tickets.append(scheduler.submit(images, arrival=now, deadline=deadline))
            except (QueueFull, InvalidRequest, DeadlineExpired):
                assert len(images) + scheduler.num_waiting > max_queue or deadline == now
        elif kind == "cancel" and tickets:
            scheduler.cancel(tickets[what % len(tickets)])
        elif kind == "fail" and scheduler.next_stage(now) is not None:
            scheduler.next_batch(now)
            scheduler.fail()
            left.extend(scheduler.departures())
        elif kind == "call":
            for _ in range(what):
                if scheduler.next_stage(now) is not None:
                    call()
    while scheduler.next_stage(now) is not None:
        call()
    scheduler.drop(now)
    left.extend(scheduler.departures())
    assert scheduler.idle
    assert Counter(d.image for d in left) == Counter(image for ticket in tickets for image in ticket.images)
    for departure in left:
        assert (departure.outcome is Outcome.FINISHED) == (departure.image.stage is Stage.DONE)
