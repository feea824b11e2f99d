"""Fronts of speed and quality: seconds by calls, a point for every setting whose calls were timed, who is faster."""

from typing import Any

import pytest

from benchmarks.fronts import CallSeconds, Point, call_seconds, calls_of, front, points, rows_of, seconds_of

QUALITY = "PSNR to the named picture, dB"


def painted(few: float, many: float) -> dict[str, Any]:
    return {"4": {"seconds": few}, "20": {"seconds": many}}


def quality(bundle: str, steps: int, db: float, shortcuts: str = "") -> dict[str, Any]:
    text = f"{db:.2f} ({db - 1:.2f}…{db + 1:.2f})"
    return {"bundle": bundle, "sampler": "ddim", "steps": steps, "shortcuts": shortcuts, QUALITY: text}


PEERS = {
    "details": {
        "rows": [
            {"configuration": "Mezzotint: int8", "painted": painted(2, 10)},
            {"configuration": "Mezzotint: int8, cache_interval 3, guidance_end 0.6", "painted": painted(1.25, 5.45)},
            {"configuration": "Mezzotint: int8, decoder tiny", "painted": painted(0.1, 0.5)},
            {"configuration": "other: default", "painted": painted(4, 20)},
            {"configuration": "other: slow at first", "painted": painted(8, 16)},
            {"configuration": "none: broken", "painted": {}},
        ]
    }
}
PARETO = {
    "details": {
        "all": [
            quality("fp32", 4, 18.0),
            quality("fp32", 20, 24.0),
            quality("fp32", 20, 23.9, "cache_interval=3"),
            quality("int8", 4, 17.8),
            quality("int8", 20, 23.9),
            quality("int8", 20, 23.6, "cache_interval=3, guidance_end=0.6"),
            quality("int8", 20, 23.0, "cache_interval=5"),
        ]
    }
}


def test_seconds_lie_on_the_line_through_the_step_counts_that_were_timed() -> None:
    assert seconds_of(painted(2, 10), 12) == pytest.approx(6)
    assert seconds_of(painted(2, 10), 20) == pytest.approx(10)


def test_calls_are_counted_as_they_are_made() -> None:
    assert calls_of(4, "") == {("", 0): 1, ("full", 2): 4}
    assert calls_of(7, "cache_interval=3") == {("", 0): 1, ("full", 2): 3, ("shallow", 2): 4}
    assert calls_of(10, "guidance_end=0.6") == {("", 0): 1, ("full", 2): 6, ("full", 1): 4}
    assert calls_of(4, "", "heun")["full", 2] == 7


def test_what_calls_take_follows_from_pictures_whose_calls_differ() -> None:
    takes = {("", 0): 0.7, ("full", 2): 0.5, ("full", 1): 0.3, ("shallow", 2): 0.05, ("shallow", 1): 0.02}
    ways = [(steps, how) for steps in (4, 20) for how in ("", "cache_interval=3", "cache_interval=5, guidance_end=0.6")]
    asked = [calls_of(steps, how) for steps, how in [*ways, (20, "guidance_end=0.6")]]
    found = CallSeconds.fitted([(calls, sum(takes[kind] * count for kind, count in calls.items())) for calls in asked])
    assert found.by_call == pytest.approx(takes)
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.of(calls_of(6, "cache_interval=5")) == pytest.approx(0.7 + 2 * 0.5 + 4 * 0.05)
    assert CallSeconds({("", 0): 0.7}, 0.0).of(calls_of(4, "")) is None


def test_rows_with_another_decoder_say_nothing_of_calls() -> None:
    found = call_seconds(PEERS, "int8")
    assert found.error < 0.01
    assert found.by_call["full", 2] == pytest.approx(0.5, rel=0.1)


def test_a_point_is_what_was_timed_and_painted() -> None:
    found = {(p.engine, p.steps, p.shortcuts): (p.seconds, p.named_db) for p in points(PEERS, PARETO, "int8", "fp32")}
    assert found.keys() == {
        ("best peer", 4, ""),
        ("best peer", 20, ""),
        ("Mezzotint", 4, ""),
        ("Mezzotint", 20, ""),
        ("Mezzotint", 20, "cache_interval=3, guidance_end=0.6"),
        ("Mezzotint", 20, "cache_interval=5"),
    }
    assert found["best peer", 20, ""] == (16, 24.0)  # the fastest is another one here
    assert found["Mezzotint", 4, ""] == (pytest.approx(2, rel=0.01), 17.8)
    assert found["Mezzotint", 20, "cache_interval=3, guidance_end=0.6"] == (pytest.approx(5.45, rel=0.01), 23.6)


def test_the_fastest_setting_that_loses_little_is_compared() -> None:
    rows = rows_of(points(PEERS, PARETO, "int8", "fp32"))
    assert [row["Mezzotint, times as fast"] for row in rows] == [2.0, 1.6]
    assert rows[1]["Mezzotint"] == "ddim 20"  # the ones with shortcuts lose 0.4 dB and more


def test_what_is_gained_with_every_step_guided_stands_apart() -> None:
    peer = Point("best peer", "ddim", 20, "", 16, 24.0)
    ours = [
        Point("Mezzotint", "ddim", 20, how, s, 24.0) for how, s in (("guidance_end=0.6", 4), ("cache_interval=2", 8))
    ]
    (row,) = rows_of([peer, *ours])
    assert (row["Mezzotint, times as fast"], row["every step guided, times as fast"]) == (4.0, 2.0)


def test_where_nothing_is_as_good_the_row_says_nothing() -> None:
    (row,) = rows_of([Point("best peer", "ddim", 20, "", 16, 24.0), Point("Mezzotint", "ddim", 4, "", 1, 17.0)])
    assert row["Mezzotint, times as fast"] == row["every step guided, times as fast"] == ""


def test_a_front_holds_what_nothing_beats_in_both() -> None:
    slow, good, bad = (Point("m", "ddim", 1, "", s, db) for s, db in ((3, 20), (2, 21), (1, 19)))
    assert front([slow, good, bad]) == [bad, good]
