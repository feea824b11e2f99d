"""The orders of the queue, each by its own formula, and what they need of the demand."""

import math

import numpy as np
import pytest

from mezzotint.server.demand import Demand
from mezzotint.server.policy import (
    DEFAULT_POLICY,
    POLICIES,
    Policy,
    earliest_deadline,
    fcfs,
    gamma_boost,
    in_time,
    least_work,
    log_boost,
    processor_sharing,
)

NEVER = math.inf


def order(policy: Policy, *images: tuple[float, float, float, float], now: float = 100.0) -> list[int]:
    """Return who goes first of (arrival, size, remaining, deadline)."""
    return np.argsort(policy(*np.array(images).T, now), kind="stable").tolist()


def demand_of(sizes: list[float], seconds_between: float, images_a_call: float = 1.0) -> Demand:
    demand = Demand(images_a_call)
    for i, size in enumerate(sizes):
        demand.come(i * seconds_between, size)
    return demand


def test_first_come_first_served_looks_at_nothing_else() -> None:
    assert order(fcfs, (2, 1, 1, 3), (1, 50, 50, NEVER)) == [1, 0]


def test_processor_sharing_puts_first_who_had_least_of_the_engine_for_its_time() -> None:
    assert order(processor_sharing, (0, 50, 20, NEVER), (90, 50, 49, NEVER), (100, 9, 9, NEVER)) == [2, 1, 0]


def test_least_work_gives_way_to_who_has_waited_long() -> None:
    assert order(least_work(0.1), (99, 4, 4, NEVER), (0, 20, 20, NEVER)) == [0, 1]
    assert order(least_work(0.1), (999, 4, 4, NEVER), (0, 20, 20, NEVER)) == [1, 0]


@pytest.mark.parametrize("size", [0.01, 1.0, 30.0])
def test_gamma_boost_is_the_papers_formula(size: float) -> None:
    gamma = 0.05
    boost = math.log(1 / (1 - math.exp(-gamma * size))) / gamma
    assert gamma_boost(gamma)(7.0, size, size / 2, NEVER, 9.0) == pytest.approx(7.0 - boost)


def test_log_boost_takes_half_the_work_for_so_many_seconds_whatever_the_unit() -> None:
    policy = log_boost(10.0)
    assert policy(3.0, 9.0, 4.0, NEVER, 5.0) - policy(3.0, 9.0, 2.0, NEVER, 5.0) == pytest.approx(10 * math.log(2))
    images = [(0.0, 50.0, 50.0, NEVER), (20.0, 4.0, 4.0, NEVER), (5.0, 25.0, 3.0, NEVER)]
    in_other_units = [(a, size * 7, rest * 7, d) for a, size, rest, d in images]
    assert order(policy, *images) == order(policy, *in_other_units) == [2, 1, 0]


def test_log_boost_lets_nobody_starve() -> None:
    assert order(log_boost(10.0), (0, 1e4, 1e4, NEVER), (200, 1e-3, 1e-3, NEVER)) == [0, 1]


def test_earliest_deadline_puts_those_without_one_last_in_their_order() -> None:
    images = ((5, 1, 1, NEVER), (4, 1, 1, NEVER), (9, 1, 1, 200.0), (0, 1, 1, 150.0))
    assert order(earliest_deadline, *images) == [3, 2, 1, 0]


def test_in_time_gives_no_time_to_who_cannot_make_it_and_prefers_little_work() -> None:
    policy = in_time(2.0)
    hopeless, tight, later = (0, 9, 9, 110.0), (0, 4, 4, 110.0), (0, 1, 1, 150.0)
    assert order(policy, hopeless, tight, later) == [1, 2, 0]
    assert order(policy, (0, 30, 30, 200.0), (0, 2, 2, 240.0)) == [1, 0]


def test_in_time_lets_nobody_without_a_deadline_starve() -> None:
    patient = (0, 2, 2, NEVER)
    assert order(in_time(1.0), patient, (100, 2, 2, 110.0), now=100.0) == [0, 1]
    assert order(in_time(1.0), patient, (0, 2, 2, 30.0), now=1.0) == [1, 0]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_orders_one_image_and_many_alike(name: str) -> None:
    policy = POLICIES[name](demand_of([4.0, 10.0, 25.0, 50.0] * 5, 30.0))
    images = np.array([(90.0, 4.0, 4.0, 130.0), (10.0, 50.0, 20.0, NEVER), (99.0, 10.0, 1e-9, 101.0)])
    together = policy(*images.T, 100.0)
    assert np.isfinite(together).all()
    assert together.tolist() == pytest.approx([float(policy(*image, 100.0)) for image in images])
    assert name in (*POLICIES, DEFAULT_POLICY)


def test_a_demand_knows_load_mean_work_and_the_wait_that_first_come_would_give() -> None:
    demand = demand_of([4.0, 10.0, 25.0, 50.0] * 64, 22.25 / 0.8)
    assert demand.mean_size == pytest.approx(22.25)
    assert demand.load == pytest.approx(0.8, rel=0.01)
    assert demand.mean_wait == pytest.approx(0.8 * 810.25 / (2 * 22.25 * 0.2), rel=0.05)
    assert demand.gamma == pytest.approx(1 / demand.mean_wait)


def test_the_boost_is_less_where_images_share_calls() -> None:
    alone, shared = (demand_of([4.0, 50.0] * 20, 30.0, images).boost_seconds for images in (1, 4))
    assert shared == pytest.approx(alone * 4**-0.6)


@pytest.mark.parametrize("seconds_between", [0.0, 1e-9, 5.0])
def test_an_overload_or_a_burst_is_bounded(seconds_between: float) -> None:
    demand = demand_of([25.0] * 40, seconds_between)
    assert demand.load == 0.95
    assert 0 < demand.boost_seconds < 1e3


def test_nothing_has_to_have_come() -> None:
    demand = Demand()
    assert (demand.mean_size, demand.mean_wait, demand.boost_seconds) == (0.0, 0.0, 0.0)
    assert math.isfinite(demand.gamma)


def test_what_came_long_ago_is_forgotten() -> None:
    demand = demand_of([1e6] * 10 + [2.0] * 512, 5.0)
    assert demand.mean_size == pytest.approx(2.0)
    assert demand.load == pytest.approx(0.4, rel=0.01)
