"""Step times are measured between requests, and never beside one; what was learnt holds from the next step on."""

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mezzotint.engines.bundle import LoadOptions, curve_files
from mezzotint.engines.component import Component
from mezzotint.engines.curves import SURE_ROUNDS, add_rounds, read_rounds
from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request
from mezzotint.engines.sizes import Size
from mezzotint.engines.variants import FULL
from mezzotint.server import learn
from mezzotint.server.app import load_core
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Event, Failed, Finished
from mezzotint.server.learn import AskedSizes, Learning, Quiet, pause_seconds
from mezzotint.server.observer import Call, Observer
from tests.fakes import UNET, FakeEngine, fake_model
from tests.sized import sized

TEXT = (Component.TEXT_ENCODER, FULL)
OWN, LARGE, NO_SIZE = Size(8, 8, 8), Size(16, 16, 8), Size(0, 0, 0)


class Rows(Observer):
    """The rows of each UNet call."""

    def __init__(self) -> None:
        self.of_calls: list[int] = []

    def called(self, call: Call) -> None:
        if call.stage is Stage.DENOISE:
            self.of_calls.append(call.num_rows)


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def paint(core: Core, num_requests: int, **request: Any) -> None:
    """Ask for pictures at one time, and wait for all."""
    heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
    for i in range(num_requests):
        core.submit(Request(prompt="a cat", **request), request_id=str(i), on_event=heard.put)
    endings = 0
    while endings < num_requests:
        event = heard.get(timeout=20)
        assert not isinstance(event, Failed)
        endings += isinstance(event, Finished)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds that follow each other at once."""
    monkeypatch.setattr(learn, "pause_seconds", lambda num_rounds, spent_seconds: 0.0)
    monkeypatch.setattr(learn, "_AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(learn, "_LOOK_SECONDS", 0.01)


def test_an_idle_server_measures_its_engines(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    files = {UNET: tmp_path / "curves" / "unet.json", TEXT: tmp_path / "curves" / "text.json"}
    add_rounds(files[TEXT], NO_SIZE, {1: [5.0]})
    core = Core(model, CoreConfig())
    core.warm_up_rest(Learning(files))
    wait_for(lambda: len(read_rounds(files[TEXT]).get(NO_SIZE, {}).get(8, [])) == 1)
    wait_for(files[UNET].exists)
    core.close()
    assert set(read_rounds(files[UNET])[OWN]) == set(engines[UNET].row_counts)
    assert read_rounds(files[TEXT])[NO_SIZE][1][0] == 5.0  # kept beside what was measured now


def test_a_size_that_is_asked_for_often_is_measured_too_and_one_asked_for_once_is_not(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    file = tmp_path / "unet.json"
    core = Core(model, CoreConfig())
    core.warm_up_rest(Learning({UNET: file}))
    paint(core, 1, steps=1, width=48, height=32)
    paint(core, 4, steps=1, width=64, height=64)
    wait_for(lambda: LARGE in read_rounds(file))
    core.close()
    assert set(read_rounds(file)) == {OWN, LARGE}


def rows_of_calls(core: Core, unet: FakeEngine, rows: Rows) -> list[int]:
    """Return the rows of the calls that four guided pictures take which wait for each other."""
    unet.hold()
    painting = threading.Thread(target=paint, args=(core, 4), kwargs={"steps": 3, "guidance": 4.0})
    painting.start()
    wait_for(lambda: core.num_waiting + core.num_started == 4)
    rows.of_calls.clear()
    unet.release()
    painting.join(20)
    return rows.of_calls


def test_what_was_learnt_changes_the_calls_of_a_running_server(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    rows, file = Rows(), tmp_path / "unet.json"
    core = Core(model, CoreConfig(), observer=rows)
    assert max(rows_of_calls(core, engines[UNET], rows)) > 2
    add_rounds(file, OWN, {count: [1e-3 * count] * SURE_ROUNDS for count in (1, 2, 4, 8)})
    core.warm_up_rest(Learning({UNET: file}))  # recalls what is kept
    wait_for(lambda: model.max_rows[FULL] == 2)
    assert set(rows_of_calls(core, engines[UNET], rows)) == {2}
    core.close()


@pytest.mark.usefixtures("often")
def test_a_knee_of_a_noisy_moment_is_mended_by_the_rounds_that_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engines = fake_model(tmp_path)
    slow = threading.Event()
    slow.set()
    run = engines[UNET].run

    def costly(inputs: Any) -> Any:
        """Take the same time for any rows; in a noisy moment many rows take far longer."""
        time.sleep(0.05 if slow.is_set() and len(inputs["sample"]) > 2 else 0.005)
        return run(inputs)

    monkeypatch.setattr(engines[UNET], "run", costly)
    core = Core(model, CoreConfig())
    core.warm_up_rest(Learning({UNET: tmp_path / "unet.json"}))
    wait_for(lambda: model.max_rows[FULL] == 2)
    slow.clear()
    wait_for(lambda: model.max_rows[FULL] == 8)
    core.close()
    assert len(read_rounds(tmp_path / "unet.json")[OWN][1]) >= 2


def test_rounds_follow_each_other_ever_more_rarely_and_take_a_hundredth_of_the_time_at_most() -> None:
    assert [pause_seconds(num_rounds, 0.2) for num_rounds in (0, 1, 2, 50)] == [60, 120, 240, 3600]
    assert pause_seconds(0, 30.0) == 3000
    assert pause_seconds(10**6, 300.0) == 30_000


def test_nothing_is_measured_while_a_request_is_here(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    idle, file = threading.Event(), tmp_path / "unet.json"
    quiet = Quiet()
    quiet.join(idle.is_set)
    warm_up = learn.WarmUp(model, asked.put, quiet, AskedSizes(), lambda key, size, curve: None)
    warm_up.start(Learning({UNET: file}))
    for _ in range(3):
        asked.get(timeout=10)()
    prepared = len(engines[UNET].row_counts)
    assert len(engines[UNET].calls) == prepared  # by the warm-up itself
    idle.set()
    while not file.exists():
        asked.get(timeout=10)()
    warm_up.stop()
    warm_up.join()
    assert sorted(engines[UNET].calls[prepared:]) == sorted(3 * engines[UNET].row_counts)


def test_instances_of_one_host_measure_one_after_the_other(tmp_path: Path) -> None:
    quiet, busy = Quiet(), threading.Event()
    quiet.join(lambda: True)
    quiet.join(lambda: not busy.is_set())
    assert quiet.call(lambda: 1.0) == 1.0
    assert quiet.call(lambda: quiet.call(lambda: 2.0) or 3.0) == 3.0  # another's is not made beside it
    busy.set()
    assert quiet.call(lambda: 1.0) is None


def test_a_server_that_stops_measures_no_more(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    engines[UNET].hold()
    core = Core(model, CoreConfig())
    core.warm_up_rest(Learning({UNET: tmp_path / "unet.json"}))
    assert engines[UNET].entered.acquire(timeout=10)
    closing = threading.Thread(target=core.close)
    closing.start()
    time.sleep(0.1)
    engines[UNET].release()
    closing.join(10)
    assert not closing.is_alive()
    assert not (tmp_path / "unet.json").exists()


@pytest.mark.slow
def test_a_compiled_bundle_learns_the_sizes_that_it_is_asked_for(
    emoji_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bundle = sized(emoji_bundle, tmp_path / "sized")
    options = LoadOptions(devices={})
    core = load_core(bundle, options, CoreConfig())
    try:
        paint(core, 4, steps=2, guidance=4.0, width=96, height=64)
        file = curve_files(core.model.digest, core.model.manifest, options)[UNET]
        wide = Size(16, 24, 24)
        wait_for(lambda: wide in read_rounds(file))
        rounds = read_rounds(file)
        assert set(rounds) == {Size(16, 16, 24), wide}
        assert set(rounds[wide]) == set(core.model.engines[UNET].row_counts)
    finally:
        core.close()
