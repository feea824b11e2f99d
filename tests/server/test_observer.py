"""The seam itself: what is told, when, and what it costs."""

import itertools
import time
from pathlib import Path

import pytest

from mezzotint.engines.batch import Batch
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.guidance import combine
from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request
from mezzotint.server.observer import Answer, Call, Observer, Several, Watched, traceparent_of
from tests.fakes import UNET, FakeClock, fake_model


def test_a_call_is_told_as_it_was_and_not_as_the_next_one_will_be(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, step_cache=True)
    calls: list[Call] = []
    watched = Watched(model, calls.append, time.monotonic)
    batch = Batch(model.start(Request(prompt="a cat", steps=2, cache_interval=2, guidance=3.0)))
    watched.encode(batch)
    for _ in range(2):
        step = Batch(batch.images)
        step.advance(combine(watched.denoise(step), step.weights))
    watched.decode(Batch(batch.images))
    assert [(call.stage, call.variant, call.num_rows) for call in calls] == [
        (Stage.ENCODE, "full", 2),
        (Stage.DENOISE, "full", 2),
        (Stage.DENOISE, "shallow", 2),
        (Stage.DECODE, "full", 1),
    ]
    assert all(before.ended <= after.began for before, after in itertools.pairwise(calls))


def test_a_call_that_fails_is_not_told_and_its_error_is_its_own(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    calls: list[Call] = []
    watched = Watched(model, calls.append, FakeClock())
    batch = Batch(model.start(Request(prompt="a cat", steps=2)))
    watched.encode(batch)
    engines[UNET].failures = 1
    with pytest.raises(EngineFailed):
        watched.denoise(batch)
    assert [call.stage for call in calls] == [Stage.ENCODE]


def test_several_observers_hear_all_of_it_in_order() -> None:
    heard: list[str] = []

    class Ear(Observer):
        def __init__(self, name: str) -> None:
            self.name = name

        def left(self, model: str, outcome: str) -> None:
            heard.append(f"{self.name} {model} {outcome}")

        def received(self, answer: Answer) -> None:
            answer.traceparent += self.name

    both = Several([Ear("one"), Ear("two")])
    both.left("emoji", "finished")
    answer = Answer("id")
    both.received(answer)
    both.answered(answer)
    assert heard == ["one emoji finished", "two emoji finished"]
    assert answer.traceparent == "onetwo"


GOOD = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("given", "taken"),
    [(GOOD, GOOD), (GOOD.upper(), ""), (GOOD + "\n", ""), (GOOD[:-3], ""), ("", ""), (GOOD.encode(), "")],
)
def test_a_span_is_taken_only_from_a_valid_traceparent(given: str | bytes, taken: str) -> None:
    assert traceparent_of((("user-agent", "any"), ("traceparent", given))) == taken
