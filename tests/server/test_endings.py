"""How requests end for those who wait for them, whatever becomes of those who watch."""

import queue
import threading
from pathlib import Path

import pytest

from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.endings import report
from mezzotint.server.events import Event, Failed, Finished
from mezzotint.server.job import ANYONE, Job
from mezzotint.server.observer import Call, Ending, Observer
from mezzotint.server.pictures import PictureOptions
from tests.fakes import UNET, fake_model


class Watching(Observer):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []
        self.outcomes: list[str] = []

    def ended(self, ending: Ending) -> None:
        self.endings.append(ending)

    def left(self, model: str, outcome: str) -> None:
        self.outcomes.append(outcome)


class Failing(Observer):
    def ended(self, ending: Ending) -> None:
        raise RuntimeError("nobody is there")


def test_a_request_ends_though_who_watches_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, _ = fake_model(tmp_path)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    core = Core(model, CoreConfig(), observer=Failing())
    core.submit(Request(steps=1), request_id="one", on_event=events.put)
    while not isinstance(event := events.get(timeout=10), Finished | Failed):
        pass
    assert isinstance(event, Finished)
    assert core.drain(10.0)
    core.close()
    assert "request one: its ending was not reported" in caplog.text


def test_what_is_told_of_an_ending_does_not_change_with_later_calls() -> None:
    watching = Watching()
    job = Job("one", Request(), PictureOptions(), lambda _: None, 0.0, None, ANYONE)
    job.called(Call("fake", Stage.ENCODE, "full", (), 1, 0.0, 1.0))
    report(watching, "fake", job, 2.0, None)
    job.called(Call("fake", Stage.DENOISE, "full", (), 1, 2.0, 3.0))
    assert set(watching.endings[0].windows) == {Stage.ENCODE}


def test_images_that_a_closing_core_leaves_behind_count_as_cancelled(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    watching = Watching()
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    core = Core(model, CoreConfig(), observer=watching)
    engines[UNET].hold()
    core.submit(Request(steps=1000, num_images=2), request_id="one", on_event=events.put)
    assert engines[UNET].entered.acquire(timeout=10)
    closing = threading.Thread(target=core.close)
    closing.start()
    while not isinstance(events.get(timeout=10), Failed):
        pass
    engines[UNET].release()
    closing.join(10)
    assert watching.outcomes == ["cancelled", "cancelled"]
    assert len(watching.endings) == 1
