"""When an image is done is foreseen, and a deadline that cannot be met is refused."""

import random

import pytest

from mezzotint.engines.errors import DeadlineTooSoon, InvalidRequest
from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL
from mezzotint.server.costs import EvaluationCosts
from mezzotint.server.forecast import Forecast, Pace, forecast
from mezzotint.server.policy import POLICIES
from mezzotint.server.scheduler import Scheduler
from tests.fakes import FakeImage
from tests.server.scheduling import make_scheduler


def alone(num_images: int) -> float:
    return float(num_images)


def test_one_after_the_other_where_a_call_holds_one() -> None:
    assert forecast([(3.0, 1.0), (2.0, 0.0)], [True, False], 1, alone) == [Forecast(0.0, 4.0), Forecast(4.0, 6.0)]


def test_side_by_side_as_many_as_a_call_holds_and_the_next_where_one_ends() -> None:
    found = forecast([(3.0, 0.0), (2.0, 0.0), (4.0, 0.0)], [False] * 3, 2, lambda num: 1.5 * num / 2)
    assert found == [Forecast(0.0, 4.5), Forecast(0.0, 3.0), Forecast(3.0, 9.0)]


def test_nobody_is_foreseen_where_nobody_is() -> None:
    assert forecast([], [], 4, alone) == []


def test_the_pace_is_that_of_the_last_calls() -> None:
    pace = Pace()
    assert (pace.ratio, pace.is_known) == (1.0, False)
    for _ in range(4):
        pace.note(2.0, 3.0)
        pace.note(0.0, 9.0)  # of which nothing was expected
    assert (pace.ratio, pace.is_known) == (1.5, True)
    for _ in range(64):
        pace.note(1.0, 1.0)
    assert pace.ratio == 1.0


def test_one_call_that_takes_very_long_does_not_set_the_pace() -> None:
    pace = Pace()
    for seconds in (*[1.0] * 10, 50.0):
        pace.note(1.0, seconds)
    assert pace.ratio < 1.3
    for _ in range(128):  # but a machine that has become slow does
        pace.note(1.0, 50.0)
    assert pace.ratio == pytest.approx(50.0)


def run_timed(scheduler: Scheduler, now: float, slowness: float = 1.0) -> float:
    """Make the next call and return when it ends: a second for each image that denoises, times ``slowness``."""
    batch = scheduler.next_batch(now)
    if batch.stage is Stage.DENOISE:
        now += slowness * len(batch.images)
    for image in batch.images:
        image.run()  # type: ignore[attr-defined]
    scheduler.settle(batch, now)
    return now


@pytest.mark.parametrize("policy", ["fcfs", "log-boost", "gamma-boost"])
@pytest.mark.parametrize("slots", [1, 4])
def test_images_are_done_when_it_was_foreseen(policy: str, slots: int) -> None:
    chosen = random.Random(1)
    scheduler = make_scheduler(max_rows={FULL: 2 * slots}, policy=POLICIES[policy])
    images = [FakeImage(remaining=chosen.choice([4, 10, 25, 50])) for _ in range(30)]
    now = warm(scheduler, slowness=3.0)
    for image in images:
        scheduler.submit([image], arrival=now)  # type: ignore[list-item]
    foreseen = scheduler.forecast(now)
    done, begun = {}, now
    while not scheduler.idle:
        now = run_timed(scheduler, now, slowness=3.0)
        done |= {departure.image: now - begun for departure in scheduler.departures()}
    errors = [abs(foreseen[image].finish - seconds) / seconds for image, seconds in done.items()]  # type: ignore[index]
    assert max(errors) < (0.02 if slots == 1 else 0.5)
    assert sum(errors) / len(errors) < (0.01 if slots == 1 else 0.15)


def warm(scheduler: Scheduler, slowness: float = 1.0) -> float:
    """Let the scheduler see how fast its calls are; returns when that is done."""
    scheduler.submit([FakeImage(remaining=8)], arrival=0.0)  # type: ignore[list-item]
    now = 0.0
    while not scheduler.idle:
        now = run_timed(scheduler, now, slowness)
    scheduler.departures()
    return now


def busy() -> tuple[Scheduler, float]:
    """A scheduler that has ten seconds of work, a call each."""
    scheduler = make_scheduler(max_rows={FULL: 2})
    now = warm(scheduler)
    scheduler.submit([FakeImage(remaining=10)], arrival=now)  # type: ignore[list-item]
    return scheduler, now


def test_a_deadline_that_those_ahead_leave_no_time_for_is_refused_with_a_time_to_try_again() -> None:
    scheduler, now = busy()
    with pytest.raises(DeadlineTooSoon, match="in 7 s, but the request would be done in 14 s behind") as refusal:
        scheduler.submit([FakeImage(remaining=4)], arrival=now, deadline=now + 7.0)  # type: ignore[list-item]
    assert refusal.value.retry_after_ms == 7000
    assert scheduler.num_images == 1


def test_a_deadline_that_an_empty_server_could_not_meet_is_wrong_rather_than_early() -> None:
    scheduler, now = busy()
    with pytest.raises(InvalidRequest, match="in 3 s, but the request takes 4 s on an empty server"):
        scheduler.submit([FakeImage(remaining=4)], arrival=now, deadline=now + 3.0)  # type: ignore[list-item]
    assert scheduler.num_images == 1


def test_a_deadline_that_can_be_met_is_taken_in() -> None:
    scheduler, now = busy()
    scheduler.submit([FakeImage(remaining=4)], arrival=now, deadline=now + 14.5)  # type: ignore[list-item]
    assert scheduler.num_images == 2


def test_a_server_may_take_them_in_all_the_same() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2}, admit_late=True)
    now = warm(scheduler)
    scheduler.submit([FakeImage(remaining=4)], arrival=now, deadline=now + 3.0)  # type: ignore[list-item]
    assert scheduler.num_images == 1


def test_nothing_is_refused_for_its_deadline_before_any_call_was_seen() -> None:
    scheduler = make_scheduler(costs=EvaluationCosts())
    scheduler.submit([FakeImage(remaining=50)], arrival=0.0, deadline=0.5)  # type: ignore[list-item]
    assert scheduler.num_images == 1


def test_the_pace_is_that_of_the_last_64_calls() -> None:
    pace = Pace()
    for i in range(1000):
        pace.note(0.1, 0.7 + i)
    assert pace.ratio == pytest.approx(sum(0.7 + i for i in range(936, 1000)) / 6.4)
    for _ in range(64):
        pace.note(0.1, 0.2)
    assert pace.ratio == pytest.approx(2.0)
