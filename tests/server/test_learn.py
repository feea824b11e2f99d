"""Step times are measured between requests, and never beside one."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from mezzotint.engines.curves import read_curve, write_curve
from mezzotint.engines.manifest import Component
from mezzotint.engines.variants import FULL
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.learn import learn
from tests.fakes import UNET, fake_model

TEXT = (Component.TEXT_ENCODER, FULL)


def wait_for(file: Path) -> None:
    until = time.monotonic() + 10
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_idle_server_measures_what_is_not_known_yet(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    files = {UNET: tmp_path / "curves" / "unet.json", TEXT: tmp_path / "curves" / "text.json"}
    write_curve(files[TEXT], {1: 5.0})
    core = Core(model, CoreConfig())
    core.warm_up_rest(files)
    wait_for(files[UNET])
    core.close()
    assert set(read_curve(files[UNET])) == set(engines[UNET].row_counts)
    assert read_curve(files[TEXT]) == {1: 5.0}


def test_nothing_is_measured_while_a_request_is_here(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    asked: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    idle, file = threading.Event(), tmp_path / "unet.json"
    learning = threading.Thread(target=learn, args=(model, {UNET: file}, asked.put, idle.is_set, lambda: False))
    learning.start()
    for _ in range(3):
        asked.get(timeout=10)()
    assert engines[UNET].calls == []
    idle.set()
    while learning.is_alive():
        with contextlib.suppress(queue.Empty):
            asked.get(timeout=0.1)()
    assert sorted(engines[UNET].calls) == sorted(3 * engines[UNET].row_counts)
    assert file.exists()


def test_a_server_that_stops_measures_no_more(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    engines[UNET].hold()
    core = Core(model, CoreConfig())
    core.warm_up_rest({UNET: tmp_path / "unet.json"})
    assert engines[UNET].entered.acquire(timeout=10)
    closing = threading.Thread(target=core.close)
    closing.start()
    time.sleep(0.1)
    engines[UNET].release()
    closing.join(10)
    assert not closing.is_alive()
    assert not (tmp_path / "unet.json").exists()
