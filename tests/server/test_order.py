"""Who goes first among the images of several clients and priorities."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.engines.variants import FULL
from mezzotint.server.order import Place, fair_arrivals, ordered
from mezzotint.server.policy import POLICIES, fcfs, log_boost
from mezzotint.server.scheduler import Scheduler
from tests.fakes import FakeImage
from tests.server.scheduling import make_scheduler, run_call


def place(arrival: float, *, left: float = 1.0, client: str = "", priority: int = 0) -> Place:
    return Place(arrival, math.inf, priority, client, left, left)


def test_of_one_client_the_policy_alone_decides() -> None:
    places = [place(0.0, left=50.0), place(1.0, left=4.0), place(2.0, left=10.0)]
    assert list(ordered(places, log_boost(20.0), {}, 3.0)) == [1, 2, 0]


def test_of_many_clients_with_an_image_each_too() -> None:
    places = [place(float(i), left=left, client=str(i)) for i, left in enumerate((50.0, 4.0, 10.0))]
    assert list(ordered(places, log_boost(20.0), {}, 3.0)) == [1, 2, 0]


def test_a_higher_priority_goes_first_whatever_the_policy_says() -> None:
    places = [place(0.0, priority=2), place(1.0, priority=1), place(2.0, priority=2), place(3.0, priority=1)]
    assert list(ordered(places, fcfs, {}, 4.0)) == [1, 3, 0, 2]


def test_a_single_image_goes_before_the_rest_of_a_client_with_many() -> None:
    many = [place(0.0, client="many") for _ in range(50)]
    single = place(10.0, client="single")
    assert list(ordered([*many, single], fcfs, {"many": 9.5}, 10.0))[:3] == [0, 50, 1]


def test_two_clients_with_many_take_turns_though_one_came_first() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2})
    images = {client: [FakeImage(remaining=1) for _ in range(6)] for client in ("first", "second")}
    for client, own in images.items():
        scheduler.submit(own, arrival=0.0, client=client)
    finished = finish_all(scheduler)
    owner = {image: client for client, own in images.items() for image in own}
    for done in range(2, len(finished), 2):
        assert {owner[image] for image in finished[done - 2 : done]} == {"first", "second"}


def test_a_client_with_single_images_waits_no_longer_beside_one_with_many() -> None:
    scheduler = make_scheduler(max_rows={FULL: 2})
    scheduler.submit([FakeImage(remaining=2) for _ in range(60)], arrival=0.0, client="many")
    now, waits = 0.0, []
    for _ in range(10):
        single = FakeImage(remaining=2)
        came = now
        scheduler.submit([single], arrival=now, client="single")
        while single.stage != "done":
            now += 1.0
            run_call(scheduler, now)
        waits.append(now - came)
    assert max(waits) <= 2 * 4 + 1  # its own four calls, and at most as many of the other's


@pytest.mark.parametrize("policy", POLICIES)
@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 50), st.sampled_from("abc")), min_size=2, max_size=12))
def test_every_order_names_every_image_once(policy: str, images: list[tuple[float, float, str]]) -> None:
    scheduler = make_scheduler()
    places = [place(arrival, left=left, client=client) for arrival, left, client in images]
    found = ordered(places, POLICIES[policy](scheduler._demand), {"a": 40.0}, 60.0)
    assert sorted(found) == list(range(len(images)))


def test_a_clients_images_come_one_after_the_other_by_the_work_ahead() -> None:
    shares = fair_arrivals(
        arrival=np.array([0.0, 1.0, 2.0, 3.0]),
        left=np.array([5.0, 4.0, 3.0, 2.0]),
        own=np.array([2, 0, 1, 3]),
        client=np.array([0, 0, 0, 1]),
        freed=np.array([8.0, -math.inf]),
        now=10.0,
    )
    assert shares.tolist() == [13.0, 18.0, 8.0, 3.0]


def finish_all(scheduler: Scheduler) -> list[object]:
    finished: list[object] = []
    now = 0.0
    while not scheduler.idle:
        now += 1.0
        run_call(scheduler, now)
        finished += [departure.image for departure in scheduler.departures()]
    return finished


@pytest.mark.parametrize("max_rows", [2, 4])
def test_where_those_that_have_not_begun_are_alike_a_client_with_many_does_not_begin_all_of_them_first(
    max_rows: int,
) -> None:
    scheduler = make_scheduler(max_rows={FULL: max_rows}, policy=POLICIES["processor-sharing"])
    scheduler.submit([FakeImage(remaining=9) for _ in range(30)], arrival=0.0, client="many")
    run_call(scheduler, 1.0)
    run_call(scheduler, 2.0)
    single = FakeImage(remaining=9)
    scheduler.submit([single], arrival=2.0, client="single")
    assert single in run_call(scheduler, 3.0)


def test_ties_of_one_client_go_as_they_stand() -> None:
    places = [place(arrival, left=left) for arrival, left in ((2.0, 9.0), (1.0, 3.0), (0.0, 5.0))]
    assert list(ordered(places, POLICIES["processor-sharing"](make_scheduler()._demand), {}, 3.0)) == [0, 1, 2]
