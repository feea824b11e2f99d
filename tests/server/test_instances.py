"""Several cores of one bundle are used as one."""

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mezzotint.engines.errors import Unavailable
from mezzotint.engines.request import Request
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Event, Failed, Finished
from mezzotint.server.instances import Instances
from tests.fakes import UNET, FakeEngine, fake_model


class Pair:
    """Two cores on fake engines."""

    def __init__(self, folder: Path) -> None:
        models = [fake_model(folder) for _ in range(2)]
        self.unets: list[FakeEngine] = [engines[UNET] for _, engines in models]
        self.cores = [Core(model, CoreConfig()) for model, _ in models]
        self.instances = Instances(self.cores)
        self.heard: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def submit(self, name: str, steps: int) -> None:
        self.instances.submit(Request(steps=steps), request_id=name, on_event=self.heard.put)

    def endings(self, num: int) -> list[Event]:
        found: list[Event] = []
        while len(found) < num:
            event = self.heard.get(timeout=10)
            found += [event] if isinstance(event, Finished | Failed) else []
        return found


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path)
    yield pair
    for unet in pair.unets:
        unet.release()
    pair.instances.close()


def test_a_request_goes_to_the_instance_that_has_least_to_do(pair: Pair) -> None:
    for unet in pair.unets:
        unet.hold()
    pair.submit("long", steps=50)
    assert pair.unets[0].entered.acquire(timeout=10)
    pair.submit("short", steps=2)
    assert pair.unets[1].entered.acquire(timeout=10)
    pair.submit("behind the short one", steps=2)
    assert [core.num_open for core in pair.cores] == [1, 2]
    assert pair.instances.num_open == 3
    assert (pair.instances.num_started, pair.instances.num_waiting) == (2, 1)
    for unet in pair.unets:
        unet.release()
    assert all(isinstance(ending, Finished) for ending in pair.endings(3))


def test_a_burst_is_spread(pair: Pair) -> None:
    for unet in pair.unets:
        unet.hold()
    for i in range(10):
        pair.submit(str(i), steps=4)
    assert [core.num_open for core in pair.cores] == [5, 5]
    for unet in pair.unets:
        unet.release()
    assert all(isinstance(ending, Finished) for ending in pair.endings(10))


def test_a_burst_is_spread_though_one_instance_does_not_know_yet_what_its_requests_take(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_in = threading.Event()
    start = pair.cores[1].model.start
    monkeypatch.setattr(pair.cores[1].model, "start", lambda request: taken_in.wait(10) and start(request))
    for unet in pair.unets:
        unet.hold()
    pair.submit("first", steps=4)
    assert pair.unets[0].entered.acquire(timeout=10)
    for i in range(9):
        pair.submit(str(i), steps=4)
    assert [core.num_open for core in pair.cores] == [5, 5]
    taken_in.set()
    for unet in pair.unets:
        unet.release()
    assert all(isinstance(ending, Finished) for ending in pair.endings(10))


def test_all_are_drained_and_then_take_nothing_more(pair: Pair) -> None:
    for i in range(4):
        pair.submit(str(i), steps=3)
    assert pair.instances.drain(10.0)
    assert all(isinstance(ending, Finished) for ending in pair.endings(4))
    with pytest.raises(Unavailable, match="the server is stopping"):
        pair.submit("late", steps=3)


def test_they_live_as_long_as_each_of_them_does(pair: Pair) -> None:
    assert pair.instances.is_alive
    pair.cores[1].close()
    assert not pair.instances.is_alive


def test_uses_of_caches_are_those_of_all(pair: Pair) -> None:
    for unet in pair.unets:
        unet.hold()
    for i in range(2):
        pair.submit(str(i), steps=4)
    for unet in pair.unets:
        unet.release()
    pair.endings(2)
    assert [core.cache_uses()["plans"].misses for core in pair.cores] == [1, 1]
    assert pair.instances.cache_uses()["plans"].misses == 2
