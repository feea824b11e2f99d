from typing import Any

import pytest

from mezzotint.engines.errors import DeadlineExpired, InvalidRequest, QueueFull
from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL
from mezzotint.server.costs import EvaluationCosts, Work
from mezzotint.server.policy import POLICIES
from mezzotint.server.ticket import Outcome
from tests.fakes import FakeImage
from tests.server.scheduling import make_scheduler, run_call, run_out


def test_an_image_is_encoded_denoised_and_decoded_and_then_leaves() -> None:
    scheduler = make_scheduler()
    image = FakeImage(remaining=2)
    scheduler.submit([image], arrival=0.0)
    run_out(scheduler)
    assert image.ran == [Stage.ENCODE, Stage.DENOISE, Stage.DENOISE, Stage.DECODE]
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(image, Outcome.FINISHED)]
    assert scheduler.idle
    assert scheduler.departures() == []


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
    scheduler = make_scheduler(max_queue_size=60, max_rows={FULL: 2})
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
    scheduler = make_scheduler(max_rows={FULL: 2})
    failing, other = FakeImage(), FakeImage()
    scheduler.submit([failing], arrival=0.0)
    scheduler.submit([other], arrival=0.0)
    scheduler.next_batch(0.0)
    scheduler.fail()
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(failing, Outcome.FAILED)]
    run_out(scheduler)
    assert other.stage is Stage.DONE


def test_images_whose_shared_call_failed_unchanged_have_calls_of_their_own() -> None:
    scheduler = make_scheduler(max_rows={FULL: 8})
    three = [FakeImage() for _ in range(3)]
    for image in three:
        scheduler.submit([image], arrival=0.0)
    assert run_call(scheduler) == three  # encoded
    assert list(scheduler.next_batch(0.0).images) == three
    scheduler.fail(unchanged=True)
    assert scheduler.departures() == []
    assert run_call(scheduler) == three[:1]
    scheduler.next_batch(0.0)
    scheduler.fail(unchanged=True)  # and now there is no other to blame
    assert [(d.image, d.outcome) for d in scheduler.departures()] == [(three[1], Outcome.FAILED)]
    new = FakeImage()
    scheduler.submit([new], arrival=0.0)
    run_out(scheduler)
    assert all(image.stage is Stage.DONE for image in (three[0], three[2], new))


def test_an_image_whose_own_call_has_succeeded_shares_again_and_its_next_failure_is_no_repeated_one() -> None:
    scheduler = make_scheduler()
    two = [FakeImage(), FakeImage()]
    scheduler.submit(two, arrival=0.0)
    run_call(scheduler)
    scheduler.next_batch(0.0)
    scheduler.fail(unchanged=True)
    assert (run_call(scheduler), scheduler.is_repeated) == (two[:1], True)
    assert (run_call(scheduler), scheduler.is_repeated) == (two[1:], True)
    assert (run_call(scheduler), scheduler.is_repeated) == (two, False)


def test_there_is_no_batch_where_there_is_nothing_to_do() -> None:
    scheduler = make_scheduler()
    assert scheduler.next_stage(0.0) is None
    with pytest.raises(LookupError, match="ask next_stage first"):
        scheduler.next_batch(0.0)


def test_an_image_of_more_rows_than_a_call_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="images of 9 rows: must be 1 to 8"):
        make_scheduler().submit([FakeImage(rows=9)], arrival=0.0)


def test_another_policy_changes_the_order_and_nothing_else() -> None:
    scheduler = make_scheduler(
        max_rows={FULL: 2}, policy=lambda _: lambda arrival, size, remaining, deadline, now: remaining
    )
    long, short = FakeImage(remaining=9), FakeImage(remaining=1)
    scheduler.submit([long], arrival=0.0)
    scheduler.submit([short], arrival=1.0)
    assert run_call(scheduler) == [short]
    run_out(scheduler)
    assert [d.outcome for d in scheduler.departures()] == [Outcome.FINISHED] * 2


class TenSeconds(EvaluationCosts):
    def work_left(self, image: Any) -> Work:
        return Work(10.0 * image.remaining, 0.0)


def test_the_order_hears_of_sizes_of_what_is_left_and_of_deadlines() -> None:
    heard = []

    def policy(*values: object) -> object:
        heard.append([v.tolist() if hasattr(v, "tolist") else v for v in values])
        return values[0]

    scheduler = make_scheduler(policy=lambda _: policy, costs=TenSeconds())
    scheduler.submit([FakeImage(remaining=2)], arrival=0.0, deadline=50.0)
    scheduler.submit([FakeImage(remaining=3)], arrival=1.0)
    run_call(scheduler, 5.0)
    run_call(scheduler, 6.0)
    scheduler.next_stage(7.0)
    assert heard[-1] == [[0.0, 1.0], [20.0, 30.0], [10.0, 20.0], [50.0, float("inf")], 7.0]


def test_a_request_that_is_allowed_more_time_takes_it_and_waits_by_it() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2}, policy=POLICIES["earliest-deadline"])
    first, second = FakeImage(remaining=1), FakeImage(remaining=1)
    ticket = scheduler.submit([first], arrival=0.0, deadline=3.0)
    scheduler.submit([second], arrival=0.0, deadline=20.0)
    scheduler.extend(ticket, 30.0)
    assert [images for stage, images in run_out(scheduler, 5.0) if stage is Stage.DENOISE] == [[second], [first]]


def test_the_engine_time_that_is_left_is_what_the_images_still_are() -> None:
    scheduler = make_scheduler()
    scheduler.submit([FakeImage(remaining=4), FakeImage(remaining=6)], arrival=0.0)
    assert scheduler.seconds_left() == 10.0
    assert scheduler.seconds_left(2) == 20.0


def test_a_call_is_chosen_once_unless_something_changes_before_it_is_made() -> None:
    asked: list[float] = []

    def policy(arrival: Any, size: Any, remaining: Any, deadline: Any, now: float) -> Any:
        asked.append(now)
        return arrival

    scheduler = make_scheduler(policy=lambda _: policy)
    ticket = scheduler.submit([FakeImage(), FakeImage()], arrival=0.0)
    scheduler.next_stage(1.0)
    before = len(asked)
    run_call(scheduler, 1.0)
    assert len(asked) == before > 0
    scheduler.next_stage(2.0)
    scheduler.cancel(ticket)
    other = FakeImage()
    scheduler.submit([other], arrival=2.0)
    assert run_call(scheduler, 2.0) == [other]
