import queue
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mezzotint.engines.errors import (
    Cancelled,
    DeadlineExpired,
    EngineFailed,
    InvalidRequest,
    MezzotintError,
    QueueFull,
    Unavailable,
)
from mezzotint.engines.request import Request
from mezzotint.server.config import CoreConfig, ServerConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Accepted, Event, Failed, Finished, Picture, Progress
from mezzotint.server.handle import Handle
from mezzotint.server.job import Caller
from mezzotint.server.pictures import PictureOptions
from tests.fakes import UNET, FakeClock, FakeEngine, fake_model


class Bench:
    """A core on fake engines and a fake clock; what its requests hear is kept in ``heard``."""

    def __init__(self, folder: Path, config: CoreConfig) -> None:
        model, engines = fake_model(folder, step_cache=True, cut_decoder=True)
        self.unet: FakeEngine = engines[UNET]
        self.clock = FakeClock()
        self.core = Core(model, config, clock=self.clock)
        self.heard: dict[str, queue.SimpleQueue[Event]] = {}

    def submit(self, name: str, deadline: float | None = None, **fields: object) -> Handle:
        events = self.heard[name] = queue.SimpleQueue()
        return self.core.submit(
            Request(**{"steps": 2} | fields), request_id=name, on_event=events.put, deadline=deadline
        )

    def events(self, name: str) -> list[Event]:
        """All events of a request, up to its ending."""
        events = []
        while not events or not isinstance(events[-1], Finished | Failed):
            events.append(self.heard[name].get(timeout=10))
        return events

    def error(self, name: str) -> Exception:
        ending = self.events(name)[-1]
        assert isinstance(ending, Failed)
        return ending.error


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path, CoreConfig(max_queue_size=4, max_started_images=8))
    yield bench
    bench.unet.release()
    bench.core.close()


def entered(bench: Bench) -> None:
    assert bench.unet.entered.acquire(timeout=10)


def test_a_text_that_the_format_cannot_hold_is_refused_before_anything_is_painted(bench: Bench) -> None:
    prompt, picture = "a" + " " * 16_000 + "b", PictureOptions("jpeg")
    events = bench.heard["long"] = queue.SimpleQueue()
    request = Request(prompt=prompt, negative_prompt=prompt, steps=2)
    bench.core.submit(request, request_id="long", on_event=events.put, picture=picture)
    error = bench.error("long")
    assert isinstance(error, InvalidRequest)
    assert "prompt" in str(error)
    assert not bench.unet.calls


def test_events_come_in_order_and_end_once(bench: Bench) -> None:
    bench.submit("one", num_images=2, preview_every=1)
    events = bench.events("one")
    assert isinstance(events[0], Accepted)
    assert sum(isinstance(event, Progress) for event in events) == 4
    assert [event.image_index for event in events if isinstance(event, Picture)] == [0, 1]
    assert isinstance(events[-1], Finished)
    assert bench.core.drain(5.0)
    assert bench.heard["one"].empty()


def test_heun_reports_steps_rather_than_evaluations(bench: Bench) -> None:
    bench.submit("one", sampler="heun", steps=3)
    assert [event.step for event in bench.events("one") if isinstance(event, Progress)] == [1, 2, 3]
    assert len(bench.unet.calls) == 5


def test_steps_of_others_run_between_the_parts_of_a_decoder(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("short", steps=50, guidance=1.0)
    bench.submit("long", steps=60, guidance=1.0)
    for _ in range(40):  # until the other one is there too
        entered(bench)
        if max(bench.unet.calls) == 2:
            break
        time.sleep(0.01)
        bench.unet.step()
    bench.unet.release()
    assert isinstance(bench.events("short")[-1], Finished)
    assert isinstance(bench.events("long")[-1], Finished)
    log = bench.unet.log[bench.unet.log.index("vae_decoder part1") :]
    parts, step = [f"vae_decoder part{i}" for i in (1, 2, 3)], "unet full"
    assert log[:6] == [parts[0], step, parts[1], step, parts[2], step]
    assert set(log[6:-3]) == {step}
    assert log[-3:] == parts


def test_a_wrong_request_ends_with_its_error(bench: Bench) -> None:
    bench.submit("one", steps=0)
    error = bench.error("one")
    assert isinstance(error, InvalidRequest)
    assert str(error) == "steps=0: must be between 1 and 1000"


def test_a_deadline_that_passes_between_steps_ends_the_request(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("one", deadline=5.0, steps=9)
    entered(bench)
    bench.clock.now = 6.0
    bench.unet.release()
    error = bench.error("one")
    assert isinstance(error, DeadlineExpired)
    assert str(error) == ("the deadline passed after 1 of 9 steps; allow the request more time, or ask for fewer steps")
    assert bench.unet.calls == [2]


def test_a_cancelled_request_runs_no_further_step(bench: Bench) -> None:
    bench.unet.hold()
    handle = bench.submit("one", steps=9)
    entered(bench)
    handle.cancel()
    bench.unet.release()
    assert isinstance(bench.error("one"), Cancelled)
    assert bench.unet.calls == [2]


def test_a_failing_engine_ends_the_requests_of_its_batch_alone(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("one", steps=1, num_images=4)  # fills the call
    entered(bench)
    bench.submit("two", steps=1)
    bench.unet.failures = 2  # the shared call, and the first image's own
    bench.unet.release()
    error = bench.error("one")
    assert isinstance(error, EngineFailed)
    assert str(error) == "request one: an engine failed; the server's log says why under that id"
    assert isinstance(bench.events("two")[-1], Finished)


def test_what_fails_of_several_is_tried_of_each_and_nobody_is_lost(bench: Bench) -> None:
    def pictures(name: str) -> list[bytes]:
        events = bench.events(name)
        assert isinstance(events[-1], Finished)
        return [event.data for event in events if isinstance(event, Picture)]

    bench.unet.hold()
    bench.submit("one", num_images=2, seed=3)
    entered(bench)
    bench.unet.failures = 1  # of both together
    bench.unet.release()
    unlucky = pictures("one")
    assert bench.unet.calls == [4, 2, 2, 4]
    bench.submit("again", num_images=2, seed=3)
    assert pictures("again") == unlucky
    assert bench.unet.calls[4:] == [4, 4]


def test_a_full_queue_refuses_at_once(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("one", num_images=4)  # fills the call
    entered(bench)
    for name in ("two", "three", "four", "five"):
        bench.submit(name)
    with pytest.raises(QueueFull, match="of 4 images wait; try again in") as refusal:
        bench.submit("six")
    assert refusal.value.retry_after_ms >= 1
    bench.unet.release()
    assert all(isinstance(bench.events(name)[-1], Finished) for name in ("one", "two", "three", "four", "five"))


def test_a_draining_core_finishes_and_refuses(bench: Bench) -> None:
    bench.submit("one")
    assert bench.core.drain(10.0)
    assert isinstance(bench.events("one")[-1], Finished)
    with pytest.raises(Unavailable, match="model fake: the server is stopping; send the request to another"):
        bench.submit("two")


def test_closing_ends_what_is_open(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("one")
    entered(bench)
    assert not bench.core.drain(0.0)
    bench.unet.release()
    bench.core.close()
    assert isinstance(bench.events("one")[-1], Finished | Failed)


def test_a_caller_that_fails_does_not_stop_the_loop(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fail(event: Event) -> None:
        raise OSError("gone")

    bench.core.submit(Request(steps=1), request_id="deaf", on_event=fail)
    assert bench.core.drain(10.0)
    assert "request deaf: its caller failed to take Accepted" in caplog.text


def test_a_wrong_picture_format_or_setting_is_one_sentence() -> None:
    with pytest.raises(InvalidRequest, match="format='gif': must be one of png, jpeg, webp"):
        PictureOptions("gif")
    with pytest.raises(MezzotintError, match="max_queue_size=0: must be at least 1"):
        CoreConfig(max_queue_size=0)
    with pytest.raises(MezzotintError, match="port=70000: must be between 0 and 65535"):
        ServerConfig(port=70000)
    with pytest.raises(MezzotintError, match="drain_seconds=nan: must be 0 or more"):
        ServerConfig(drain_seconds=float("nan"))


def test_a_request_hears_when_it_will_begin_and_be_done(bench: Bench) -> None:
    bench.unet.hold()
    bench.submit("first", steps=4)
    assert bench.unet.entered.acquire(timeout=10)
    bench.submit("second", steps=4)
    bench.unet.release()
    accepted, *steps = (event for event in bench.events("first") if isinstance(event, Accepted | Progress))
    assert isinstance(accepted, Accepted)
    assert accepted.start_in_ms == 0.0
    assert accepted.finish_in_ms > 0.0
    left = [step.finish_in_ms for step in steps if isinstance(step, Progress)]
    assert left == sorted(left, reverse=True)
    assert len(left) == 4


def test_a_priority_that_there_is_not_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="priority=4: must be 1, which goes first, to 3, or 0 for 2"):
        bench.core.submit(Request(), request_id="a", on_event=lambda _: None, caller=Caller(priority=4))
