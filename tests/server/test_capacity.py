import heapq
import math
import random
import statistics
from collections.abc import Sequence
from pathlib import Path

import pytest

from mezzotint.engines.bundle import LoadOptions, wanted_engines
from mezzotint.engines.errors import BundleError
from mezzotint.server.capacity import Host, Kind, host_of, predict, replicas_for

ALONE = Host(lambda pictures: 0.1 * pictures, 0.0, 1)
SHARING = Host(lambda pictures: 0.04 * (1 + 0.25 * (pictures - 1)), 0.0, 4)  # four at once take 1.75 times as long


def test_one_replica_and_one_size_is_pollaczek_khinchine() -> None:
    load = predict(ALONE, [Kind(10)], 0.8, 1)
    assert load.utilisation == pytest.approx(0.8)
    assert load.mean == pytest.approx(1 + 0.8 / (2 * (1 - 0.8)))


def test_one_replica_and_two_sizes_is_pollaczek_khinchine() -> None:
    kinds, rate = (Kind(5, 0.5), Kind(15, 0.5)), 0.7
    square = 0.5 * 0.5**2 + 0.5 * 1.5**2
    assert predict(ALONE, kinds, rate, 1).mean == pytest.approx(1 + rate * square / (2 * (1 - 0.7)))


def test_nobody_waits_where_nobody_comes() -> None:
    load = predict(Host(lambda pictures: 0.1 * pictures, 0.25, 1), [Kind(10)], 1e-9, 3)
    assert load.mean == pytest.approx(1.25)
    assert load.p99 == pytest.approx(1.25)


def test_more_than_can_be_made_never_ends() -> None:
    assert predict(ALONE, [Kind(10)], 2.0, 2).mean == math.inf
    assert predict(ALONE, [Kind(10)], 2.0, 3).mean < math.inf


def simulated(sizes: Sequence[float], rate: float, replicas: int, num_images: int, seed: int = 0) -> list[float]:
    """First come, first served, one picture at a time, each to the replica that is free first."""
    draw, now = random.Random(seed), 0.0
    free, latencies = [0.0] * replicas, []
    for _ in range(num_images):
        now += draw.expovariate(rate)
        begun = max(now, free[0])
        done = begun + draw.choice(sizes)
        heapq.heapreplace(free, done)
        latencies.append(done - now)
    return latencies


@pytest.mark.parametrize(("replicas", "load"), [(2, 0.6), (2, 0.85), (4, 0.85)])
def test_several_replicas_are_foreseen_as_a_simulation_has_them(replicas: int, load: float) -> None:
    kinds = (Kind(5, 0.5), Kind(15, 0.5))
    found = simulated((0.5, 1.5), load * replicas, replicas, 60_000)
    expected = predict(ALONE, kinds, load * replicas, replicas)
    assert expected.mean == pytest.approx(statistics.fmean(found), rel=0.08)
    assert expected.p99 == pytest.approx(statistics.quantiles(found, n=100)[-1], rel=0.2)


def shared(host: Host, steps: int, rate: float, num_images: int, seed: int = 0) -> list[float]:
    """One replica, step by step: up to as many pictures as a call holds share each, the others wait in their order."""
    draw, now, latencies = random.Random(seed), 0.0, []
    arrival, here = draw.expovariate(rate), []
    while len(latencies) < num_images:
        while arrival <= now or not here:
            here.append([arrival, steps])
            now = max(now, here[0][0])
            arrival += draw.expovariate(rate)
        batch = here[: host.images_a_call]
        now += host.call_seconds(len(batch))
        for picture in batch:
            picture[1] -= 1
            if not picture[1]:
                latencies.append(now - picture[0])
                here.remove(picture)
    return latencies


@pytest.mark.parametrize("load", [0.3, 0.7, 0.9])
def test_pictures_that_share_calls_are_foreseen_as_a_simulation_has_them(load: float) -> None:
    rate = load * SHARING.pictures_a_second(20)
    found = shared(SHARING, 20, rate, 8_000)
    assert predict(SHARING, [Kind(20)], rate, 1).mean == pytest.approx(statistics.fmean(found), rel=0.1)


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0, 400.0])
def test_the_replicas_for_a_load_are_the_fewest_that_are_enough(rate: float) -> None:
    kinds = (Kind(8, 0.7), Kind(25, 0.3))
    found = replicas_for(SHARING, kinds, rate, 2.5)
    assert found is not None
    assert predict(SHARING, kinds, rate, found).p99 <= 2.5
    assert found == 1 or predict(SHARING, kinds, rate, found - 1).p99 > 2.5


def test_no_number_is_enough_where_one_picture_alone_takes_too_long() -> None:
    assert replicas_for(ALONE, [Kind(10)], 5.0, 0.9) is None


def test_many_replicas_need_less_room_each_than_one() -> None:
    one = replicas_for(ALONE, [Kind(10)], 0.5, 3.0)
    many = replicas_for(ALONE, [Kind(10)], 50.0, 3.0)
    assert one is not None
    assert many is not None
    assert many < 100 * one


def test_thousands_of_replicas_are_no_overflow() -> None:
    assert predict(ALONE, [Kind(10)], 4_500.0, 5_000).mean == pytest.approx(1.0, rel=0.01)


def test_a_real_bundle_is_a_host_whose_seconds_are_those_of_its_curves(emoji_bundle: Path) -> None:
    wanted = wanted_engines(emoji_bundle, LoadOptions(devices={}, cache=False))
    entries = {key: engine.entry for key, engine in wanted.items()}
    host = host_of(entries, rows=2)
    unet = next(entry for (component, variant), entry in entries.items() if (component, variant) == ("unet", "full"))
    assert host.call_seconds(1) == pytest.approx(unet.step_ms[2] / 1e3)
    assert 0 < host.rest_seconds < host.picture_seconds(25)
    assert host.images_a_call >= 1


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_engines_without_step_times_are_one_sentence(emoji_bundle: Path, component: str) -> None:
    wanted = wanted_engines(emoji_bundle, LoadOptions(devices={}, cache=False))
    engines = {
        key: engine.entry.model_copy(update={"step_ms": {}}) if key[0] == component else engine.entry
        for key, engine in wanted.items()
    }
    with pytest.raises(BundleError, match=f"{component} full: has no step times; run `mezzotint tune` on the machine"):
        host_of(engines, rows=2)
