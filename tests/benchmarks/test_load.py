"""The simulator against the server's own scheduler, against queueing theory, and by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.load.__main__ import cases, ways
from benchmarks.load.disciplines import NEVER, ByRequest, ByStep, Interleaved
from benchmarks.load.engine import Curve
from benchmarks.load.statistics import interval, latencies, ratios
from benchmarks.load.traffic import Floats, Traffic, poisson
from mezzotint.engines.image import Stage
from mezzotint.engines.variants import FULL
from mezzotint.server.costs import EvaluationCosts, Work
from mezzotint.server.policy import POLICIES, UNSTEADY
from mezzotint.server.scheduler import Scheduler
from tests.fakes import FakeImage

ALONE = Curve((1.0,))
SHARED = Curve.of_gain(2.0, 4)
SHARED_LARGE = Curve(tuple(2.25 * seconds for seconds in SHARED.seconds))


def traffic_of(*pictures: tuple[float, int]) -> Traffic:
    arrivals, steps = (np.array(column, dtype=float) for column in zip(*pictures, strict=True))
    return Traffic(arrivals, steps, np.full(len(pictures), np.inf), np.zeros(len(pictures), dtype=np.intp))


class CurveCosts(EvaluationCosts):
    def __init__(self, curves: Sequence[Curve]) -> None:
        self.curves = curves

    def work_left(self, image: Any) -> Work:
        return Work(image.remaining * self.curves[image.size].step_seconds, 0.0)


def by_the_server(traffic: Traffic, curves: Sequence[Curve], policy: str) -> Floats:
    """Return when each picture is denoised by the server's scheduler, whose calls take what the curves say."""
    images = [
        FakeImage(remaining=int(steps), size=int(size))
        for steps, size in zip(traffic.steps, traffic.sizes, strict=True)
    ]
    scheduler = Scheduler(
        max_rows={FULL: 2 * curves[0].most},
        max_queue_size=10**6,
        max_started_images=10**6,
        policy=POLICIES[policy],
        costs=CurveCosts(curves),
        admit_late=True,
    )
    left = np.full(len(traffic), NEVER)
    now, coming = 0.0, 0
    while coming < len(traffic) or not scheduler.idle:
        if scheduler.idle:
            now = max(now, traffic.arrivals[coming])
        while coming < len(traffic) and traffic.arrivals[coming] <= now:
            deadline = traffic.deadlines[coming]
            scheduler.submit(
                [images[coming]],  # type: ignore[list-item]
                arrival=traffic.arrivals[coming],
                deadline=None if math.isinf(deadline) else deadline,
            )
            coming += 1
        scheduler.drop(now)
        if scheduler.next_stage(now) is not None:
            batch = scheduler.next_batch(now)
            curve = curves[batch.images[0].size]  # type: ignore[attr-defined]
            now += curve.seconds[len(batch.images) - 1] if batch.stage is Stage.DENOISE else 0.0
            for image in batch.images:
                image.run()  # type: ignore[attr-defined]
                if image.stage is Stage.DECODE:  # decoding calls take turns with others, and no time here
                    left[images.index(image)] = now  # type: ignore[arg-type]
            scheduler.settle(batch, now)
    return left


@pytest.mark.parametrize("curves", [(ALONE,), (SHARED,), (SHARED, SHARED_LARGE)])
@pytest.mark.parametrize("patience", [None, (2.0, 20.0)])
@pytest.mark.parametrize("policy", POLICIES)
def test_pictures_leave_when_they_leave_the_servers_scheduler(
    policy: str, patience: tuple[float, float] | None, curves: tuple[Curve, ...]
) -> None:
    step = float(np.mean([curve.step_seconds for curve in curves]))
    alone = [curve.seconds[0] for curve in curves]
    traffic = poisson(0.9 / (22.25 * step), 120, 1, step_seconds=alone, patience=patience)
    simulated = ByStep(POLICIES[policy], is_steady=policy not in UNSTEADY)(traffic, *curves)
    np.testing.assert_allclose(simulated, by_the_server(traffic, curves, policy), rtol=1e-9)


def test_first_come_first_served_waits_as_long_as_theory_says() -> None:
    means = [
        (ByStep(POLICIES["fcfs"])(traffic, ALONE) - traffic.arrivals).mean()
        for traffic in (poisson(0.7 / 22.25, 20_000, seed) for seed in range(6))
    ]
    expected = 22.25 + 0.7 / 22.25 * 810.25 / (2 * 0.3)  # Pollaczek–Khinchine
    assert np.mean(means) == pytest.approx(expected, rel=0.05)


def test_interleaved_loops_are_slowed_alike_as_theory_says() -> None:
    """Processor sharing: a picture of s steps takes s / (1 − load), whatever the others are."""
    slowdowns = []
    for seed in range(6):
        traffic = poisson(0.7 / 22.25, 20_000, seed)
        latency = Interleaved()(traffic, ALONE) - traffic.arrivals
        slowdowns.append([(latency / traffic.steps)[traffic.steps == steps].mean() for steps in (4, 50)])
    assert np.mean(slowdowns, axis=0) == pytest.approx(1 / 0.3, rel=0.05)


def test_loops_that_take_turns_by_hand() -> None:
    assert Interleaved()(traffic_of((0, 4), (2, 4)), ALONE).tolist() == [6.0, 8.0]


def test_loops_of_two_sizes_have_as_many_turns_by_hand() -> None:
    large = Curve((2.0,))
    traffic = replace(traffic_of((0, 4), (0, 2)), sizes=np.array([0, 1]))
    assert Interleaved()(traffic, ALONE, large).tolist() == [8.0, 6.0]


def test_pictures_of_two_sizes_share_no_call_by_hand() -> None:
    traffic = replace(traffic_of((0, 4), (0, 4), (0, 4)), sizes=np.array([0, 1, 0]))
    large = Curve((10.0, 10.0, 10.0, 10.0))
    two = SHARED.seconds[1]
    assert ByStep(POLICIES["fcfs"])(traffic, SHARED, large).tolist() == pytest.approx([4 * two, 4 * two + 40, 4 * two])
    assert ByRequest()(traffic, SHARED, large).tolist() == pytest.approx([4 * two, 4 * two + 40, 4 * two])


def test_sizes_are_drawn_alike_and_deadlines_follow_from_them() -> None:
    traffic = poisson(1.0, 4_000, 1, step_seconds=(1.0, 3.0), patience=(4.0, 4.0))
    assert traffic.sizes.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(
        traffic.deadlines - traffic.arrivals, 4 * traffic.steps * np.array([1.0, 3.0])[traffic.sizes]
    )


def test_whole_requests_share_a_call_only_with_those_of_as_many_steps() -> None:
    traffic = traffic_of((0, 4), (1, 10), (2, 4), (3, 10), (3, 4))
    two, one = SHARED.seconds[1], SHARED.seconds[0]
    tens = 4 * one + 10 * two
    assert ByRequest()(traffic, SHARED).tolist() == pytest.approx([4 * one, tens, tens + 4 * two, tens, tens + 4 * two])


def test_a_short_picture_overtakes_a_long_one_between_its_steps() -> None:
    traffic = traffic_of(*((0, 50) for _ in range(20)), (500.5, 4))
    left = ByStep(POLICIES["log-boost"])(traffic, ALONE)
    assert left[-1] == 505.0
    assert left[:-1].max() == 1004.0


def test_a_picture_whose_deadline_passes_is_not_made() -> None:
    traffic = replace(traffic_of((0, 4), (0, 4)), deadlines=np.array([np.inf, 6.0]))
    assert ByStep(POLICIES["fcfs"])(traffic, ALONE).tolist() == [4.0, NEVER]
    assert ByStep(POLICIES["earliest-deadline"])(traffic, ALONE).tolist() == [8.0, 4.0]


def test_a_curves_largest_call_gains_what_was_asked() -> None:
    assert SHARED.seconds == pytest.approx((1.0, 4 / 3, 5 / 3, 2.0))
    assert SHARED.step_seconds == 0.5


def test_every_way_is_simulated_as_often_and_each_way_finishes_all() -> None:
    asked = cases(2, 100)
    assert len(asked) == len(set(asked)) == 2 * (3 + 5) * (len(ways(ALONE)) + len(ways(SHARED)))
    traffic = poisson(0.5 / 22.25, 50, 3)
    for way in ways(ALONE).values():
        assert np.isfinite(way(traffic, ALONE)).all()


def test_ratios_are_seed_by_seed_and_name_the_worst_percentile() -> None:
    traffic = [poisson(0.5 / 22.25, 500, seed) for seed in range(3)]
    base = [latencies(t, t.arrivals + t.steps, 1.0) for t in traffic]
    twice = [latencies(t, t.arrivals + 2 * t.steps, 1.0) for t in traffic]
    found = ratios(twice, base)
    assert [(round(r.mean, 6), round(r.half, 6)) for r in found.values()] == [(2.0, 0.0)] * 4
    assert interval([1.0, 3.0]).half == pytest.approx(12.71)
