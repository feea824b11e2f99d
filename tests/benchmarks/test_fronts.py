"""Fronts of speed and quality: seconds on a line, a point for every shortcut that was timed, and who is faster."""

from typing import Any

import pytest

from benchmarks.fronts import Point, front, points, rows_of, seconds_of

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
            {"configuration": "Mezzotint: int8, cache_interval 3, guidance_end 0.6", "painted": painted(1, 5)},
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


def test_a_point_is_what_was_timed_and_painted() -> None:
    found = {(p.engine, p.steps, p.shortcuts): (p.seconds, p.named_db) for p in points(PEERS, PARETO, "int8", "fp32")}
    assert found == {
        ("best peer", 4, ""): (4, 18.0),
        ("best peer", 20, ""): (16, 24.0),  # the fastest is another one here
        ("Mezzotint", 4, ""): (2, 17.8),
        ("Mezzotint", 20, ""): (10, 23.9),
        ("Mezzotint", 20, "cache_interval=3, guidance_end=0.6"): (5, 23.6),
    }


def test_the_fastest_setting_that_loses_little_is_compared() -> None:
    rows = rows_of(points(PEERS, PARETO, "int8", "fp32"))
    assert [row["times as fast"] for row in rows] == [2.0, 1.6]
    assert rows[1]["Mezzotint"] == "ddim 20"  # the one with shortcuts loses 0.4 dB


def test_where_nothing_is_as_good_the_row_says_nothing() -> None:
    (row,) = rows_of([Point("best peer", "ddim", 20, "", 16, 24.0), Point("Mezzotint", "ddim", 4, "", 1, 17.0)])
    assert row["times as fast"] == ""


def test_a_front_holds_what_nothing_beats_in_both() -> None:
    slow, good, bad = (Point("m", "ddim", 1, "", s, db) for s, db in ((3, 20), (2, 21), (1, 19)))
    assert front([slow, good, bad]) == [bad, good]
