"""Rows of the benchmark beside other engines: medians, ratios within a round, and what could not be measured."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.peers.report import best_peer, instruction_sets, pictures, plot, psnr_db, rows
from benchmarks.peers.turns import Turn


def turn(name: str, the_round: int, seconds: dict[int, float], **result: Any) -> Turn:
    """Return a turn whose pictures took ``seconds`` by step count, half of it in the UNet."""
    painted = [
        {"steps": steps, "total_s": s, "cpu_s": 2 * s, "stages": {"unet": [s / 4, s / 4], "decode": [s / 8]}}
        for steps, s in seconds.items()
    ]
    measured = {"load_s": 1.0, "warm_up_s": 2.0, "peak_rss_mib": 300.0, "versions": {}, "pictures": painted}
    return Turn(name, "key", the_round, 0.0, {**measured, **result})


def test_ratios_are_taken_within_a_round_and_not_between_medians() -> None:
    turns = [turn("peer", i, {4: s}) for i, s in enumerate((2.0, 4.0, 8.0))]
    turns += [turn("Mezzotint: x", i, {4: s}) for i, s in enumerate((1.0, 1.0, 8.0))]
    [ours] = [row for row in rows(["peer", "Mezzotint: x"], turns, [4], {}) if row.configuration == "Mezzotint: x"]
    assert ours.painted[4].seconds == 1.0
    assert ours.painted[4].speed == 2.0  # of 2, 4 and 1; the medians' own ratio would be 4


def test_the_base_is_the_fastest_peer_and_never_our_own() -> None:
    turns = [turn("slow", 0, {4: 3.0}), turn("fast", 0, {4: 2.0}), turn("Mezzotint: x", 0, {4: 1.0})]
    assert best_peer(pictures(turns, 4)) == "fast"
    assert best_peer(pictures(turns[2:], 4)) == ""


def test_a_row_says_what_a_step_took_and_how_many_cores_it_had() -> None:
    [row] = rows(["peer"], [turn("peer", 0, {4: 4.0, 20: 40.0})], [4, 20], {})
    assert row.step_s == 1.0  # half of 40 s over 20 steps; the pictures with fewer steps do not count
    assert row.decode_s == pytest.approx((0.5 + 5.0) / 2)
    assert row.cpu_over_wall == 2.0
    assert row.cells([4, 20])["20 steps, s"] == "40.00 (40.00–40.00)"


def test_rows_without_a_picture_stand_last_with_their_reason() -> None:
    failed = Turn("broken", "key", 0, 0.0, {}, "RuntimeError: no such shape | at all")
    found = rows(["broken", "unmade", "peer"], [failed, turn("peer", 0, {4: 1.0})], [4], {"unmade": "no compiler"})
    assert [row.configuration for row in found] == ["peer", "broken", "unmade"]
    assert [row.cells([4])["why not"] for row in found] == ["", "RuntimeError: no such shape / at all", "no compiler"]
    assert found[1].cells([4]).keys() == found[0].cells([4]).keys()


def test_a_picture_that_failed_leaves_the_others_standing() -> None:
    half = turn("peer", 0, {4: 1.0})
    half.result["pictures"].append({"steps": 20, "reason": "ValueError: too many"})
    [row] = rows(["peer"], [half], [4, 20], {})
    assert row.painted.keys() == {4}
    assert row.reason == "ValueError: too many"


def test_psnr_knows_equal_pictures_and_absent_ones(tmp_path: Path) -> None:
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(a)
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(b)
    assert psnr_db(a, a) == 100.0
    assert psnr_db(a, b) == pytest.approx(0.0)
    assert psnr_db(a, tmp_path / "none.png") is None


def test_instruction_sets_are_read_from_the_first_processor() -> None:
    assert instruction_sets("model name: x\nflags\t: fpu avx2 avx512f avx512_vnni amx_int8 sse2\n") == [
        *("amx_int8", "avx2", "avx512_vnni", "avx512f")
    ]
    assert instruction_sets("") == []


def test_the_plot_is_a_picture_with_a_bar_for_every_row(tmp_path: Path) -> None:
    turns = [turn("peer", 0, {4: 1.0, 20: 5.0}), turn("Mezzotint: x", 0, {4: 0.5})]
    plot(rows(["peer", "Mezzotint: x"], turns, [4, 20], {}), [4, 20], "title", tmp_path / "plot.png")
    pixels = np.asarray(Image.open(tmp_path / "plot.png").convert("RGB")).reshape(-1, 3)
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's blue and orange
        assert (pixels == colour).all(axis=1).any()
