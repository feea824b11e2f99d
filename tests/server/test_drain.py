"""Who is ended at once when a server stops; tests/server/test_faults.py has it for real."""

import itertools

import pytest

from mezzotint.server.drain import too_late
from mezzotint.server.forecast import Forecast


def ended(work: dict[str, float], seconds: float) -> list[str]:
    """Return who is ended where one does its work after the other, in this order."""
    here = dict(work)

    def forecasts() -> dict[str, Forecast]:
        return dict(zip(here, (Forecast(0.0, finish) for finish in itertools.accumulate(here.values())), strict=True))

    found = []
    for who in too_late(forecasts, seconds):
        found.append(who)
        del here[who]
    return found


@pytest.mark.parametrize(
    ("seconds", "expected"), [(30.0, []), (6.0, []), (5.9, ["c"]), (2.5, ["c", "b"]), (0.0, ["c", "b", "a"])]
)
def test_those_that_do_not_fit_are_ended_from_the_last_on(seconds: float, expected: list[str]) -> None:
    assert ended({"a": 1, "b": 2, "c": 3}, seconds) == expected


def test_the_others_are_done_sooner_without_the_long_one_and_stay() -> None:
    def forecasts() -> dict[str, Forecast]:  # all share the engine: each ends with the work of all
        return {who: Forecast(0.0, sum(min(own, other) for other in here.values())) for who, own in here.items()}

    here = {"long": 100.0, "short": 3.0, "other": 3.0}
    found = []
    for who in too_late(forecasts, 6.0):
        found.append(who)
        del here[who]
    assert found == ["long"]


def test_where_nobody_is_nobody_is_ended() -> None:
    assert list(too_late(dict, 0.0)) == []
