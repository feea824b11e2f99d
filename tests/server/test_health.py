"""When a model counts as unhealthy."""

from mezzotint.engines.image import Stage
from mezzotint.server.health import Failures

FAILURE = RuntimeError("no")


def failures(max_in_a_row: int, told: list[str]) -> Failures:
    return Failures(max_in_a_row, lambda: told.append("unhealthy"))


def test_so_many_failures_in_a_row_are_told_once() -> None:
    told: list[str] = []
    counted = failures(3, told)
    for failure in (FAILURE, FAILURE, None, FAILURE, FAILURE):
        counted.note(Stage.DENOISE, failure)
    assert told == []
    for _ in range(5):
        counted.note(Stage.DENOISE, FAILURE)
    assert told == ["unhealthy"]


def test_an_engine_that_always_fails_is_found_among_others_that_never_do() -> None:
    told: list[str] = []
    counted = failures(2, told)
    for _ in range(2):
        counted.note(Stage.DENOISE, None)
        counted.note(Stage.DECODE, FAILURE)
    assert told == ["unhealthy"]
    assert not counted.has_served
    counted.note(Stage.DECODE, None)
    assert counted.has_served


def test_a_size_that_never_worked_is_not_the_engines_failure() -> None:
    told: list[str] = []
    counted = failures(3, told)
    counted.own_size = (8, 8)
    for _ in range(9):
        counted.note(Stage.DECODE, FAILURE, (16, 16))
    assert told == []
    for failure in (None, FAILURE, FAILURE):
        counted.note(Stage.DECODE, failure, (16, 16))
    counted.note(Stage.DECODE, FAILURE, (8, 8))
    assert told == ["unhealthy"]


def test_what_worked_before_a_model_was_loaded_again_is_not_new() -> None:
    told: list[str] = []
    first = failures(1, told)
    first.note(Stage.DECODE, None, (16, 16))
    again = Failures(1, lambda: told.append("again"), first)
    again.own_size = (8, 8)
    again.note(Stage.DECODE, FAILURE, (32, 32))
    assert told == []
    again.note(Stage.DECODE, FAILURE, (16, 16))
    assert told == ["again"]


def test_zero_is_any_number() -> None:
    told: list[str] = []
    counted = failures(0, told)
    for _ in range(100):
        counted.note(Stage.ENCODE, FAILURE)
    assert told == []
