"""Ways of scheduling for real, on the demo model's engines: who is served, and who shares calls."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.load.cells import WAYS, Cell, Run, in_turns, read_runs, run_all, run_cell, whole_turns
from benchmarks.load.engine import Curve
from benchmarks.load.real_report import Measurement, by_cell, deadline_row, latency_row, report
from benchmarks.load.serving import by_core, by_request, interleaved
from benchmarks.load.stopwatch import Timed, TimedCall, run_curves, seconds_between
from benchmarks.load.throughput import Share
from benchmarks.load.traffic import Traffic
from mezzotint.engines.image import Stage
from mezzotint.engines.model import Model
from mezzotint.engines.variants import FULL

SIDES = (64,)
FAST = Curve((0.001, 0.0015, 0.002, 0.0025), 0.001)


def together(steps: list[int], patience: float = np.inf) -> Traffic:
    count = len(steps)
    return Traffic(np.zeros(count), np.array(steps, float), np.full(count, patience), np.zeros(count, dtype=np.intp))


@pytest.fixture(scope="module")
def timed(emoji: Model) -> Timed:
    model = Timed(emoji, SIDES)
    model.max_rows = {FULL: 8}  # whatever this machine's knee is
    return model


@pytest.mark.parametrize("has_deadlines", [False, True])
def test_every_way_makes_every_picture_that_has_time(timed: Timed, has_deadlines: bool) -> None:
    traffic = together([2, 3, 2], patience=100.0 if has_deadlines else np.inf)
    for serve, _ in WAYS[has_deadlines].values():
        served = serve(timed, traffic, SIDES)
        assert np.isfinite(served.left).all()
        assert len(served.dropped) == 0
        assert sum(call.num_done for call in timed.calls) == 3


def test_interleaved_loops_share_no_call_and_take_turns(timed: Timed) -> None:
    served = interleaved(timed, together([6, 6]), SIDES)
    assert {call.num_images for call in timed.calls} == {1}
    assert abs(served.left[0] - served.left[1]) < served.left.max() / 2  # one after the other, it were half


def test_whole_requests_share_the_calls_of_a_loop_with_their_like(timed: Timed) -> None:
    by_request(timed, together([30, 2, 3, 2]), SIDES)  # while the first is made, the others come
    shared = [call.num_images for call in timed.calls if call.stage is Stage.DENOISE]
    assert sorted(shared) == [1] * 33 + [2] * 2


@pytest.mark.parametrize("serve", [by_core("in-time"), by_request])
def test_a_picture_whose_deadline_has_passed_is_dropped_and_the_others_are_made(timed: Timed, serve) -> None:  # type: ignore[no-untyped-def]
    traffic = replace(together([30, 30, 2]), deadlines=np.array([np.inf, np.inf, 1e-4]))
    served = serve(timed, traffic, SIDES)
    assert np.isfinite(served.left).tolist() == [True, True, False]
    assert len(served.dropped) == 1


def call(began: float, ended: float, *, stage: Stage = Stage.DENOISE, images: int = 1, done: int = 0) -> TimedCall:
    return TimedCall(stage, 0, images, began, ended, done)


def test_the_time_between_calls_counts_while_a_picture_waits() -> None:
    calls = [call(0.0, 1.0), call(1.25, 2.0, stage=Stage.DECODE, done=1), call(5.0, 6.0), call(6.75, 7.0)]
    assert seconds_between(calls, np.array([0.0, 5.0]), np.array([])) == pytest.approx((0.25 + 0.75) / 2)
    assert seconds_between(calls, np.array([0.0, 0.5, 5.0]), np.array([])) == pytest.approx((0.25 + 3.0 + 0.75) / 3)
    assert seconds_between(calls, np.array([0.0, 0.5, 5.0]), np.array([1.5])) == pytest.approx((0.25 + 0.75) / 2)


def test_a_runs_curve_is_of_its_own_calls_and_scales_what_it_had_too_few_of() -> None:
    calls = [call(i, i + 0.5) for i in range(5)] + [call(9, 9.25, stage=Stage.DECODE, done=1)]
    (own,) = run_curves(calls, 0.1, [Curve((0.3, 0.4), 7.0)])
    assert own.seconds == pytest.approx((0.6, 0.8))
    assert own.finish_seconds == pytest.approx(0.35)


def test_ways_of_a_load_take_turns_back_and_forth() -> None:
    cells = in_turns([0.5, 3.0], 2, ["fcfs", "log"])
    assert [(cell.load, cell.way, cell.turn) for cell in cells[:4]] == [
        (0.5, "fcfs", 0),
        (0.5, "log-boost", 0),
        (3.0, "fcfs", 0),
        (3.0, "log-boost", 0),
    ]
    assert [(cell.load, cell.way, cell.turn) for cell in cells[8:10]] == [(0.5, "log-boost", 1), (0.5, "fcfs", 1)]
    assert len(cells) == len(set(cells)) == 16


def test_a_finished_turn_is_kept_and_one_that_was_cut_off_runs_again(timed: Timed, tmp_path: Path) -> None:
    cells, path = in_turns([3.0], 1, ["fcfs"])[:1], tmp_path / "runs.jsonl"
    first = run_all(cells, timed, [FAST], count=2, sides=SIDES, path=path)
    assert run_all(cells, timed, [FAST], count=2, sides=SIDES, path=path) == first == read_runs(path)
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    assert run_all(cells, timed, [FAST], count=2, sides=SIDES, path=path)[0].left != first[0].left


def test_no_turn_begins_too_late_and_one_that_not_all_ways_had_is_left_out(timed: Timed, tmp_path: Path) -> None:
    cells, path = in_turns([3.0], 2, ["fcfs"]), tmp_path / "runs.jsonl"
    assert run_all(cells, timed, [FAST], count=2, sides=SIDES, path=path, until=0.0) == []
    runs = [Run(cell, [], [], [], 0.0, 1.0) for cell in in_turns([3.0], 2, ["fcfs", "log"])]
    kept = whole_turns([run.cell for run in runs], runs[:-1])
    assert kept == runs[:-2]


def test_a_row_says_how_far_the_simulator_is_off(timed: Timed) -> None:
    measurement = Measurement("emoji", SIDES, 3, Share((1.0,)), [FAST])
    run = run_cell(Cell(3.0, has_deadlines=False, way="fcfs", turn=0), timed, [FAST], 3, SIDES)
    own = by_cell([run], measurement, has_deadlines=False)[3.0]["fcfs"]
    row = latency_row(3.0, "fcfs", own, own)
    assert row["real / simulated"] == pytest.approx(own.latency.mean() / own.simulated.mean(), abs=0.01)
    assert row["mean, × fcfs"] == 1.0


def test_results_are_tables_and_plots_of_both_questions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("benchmarks.harness", "benchmarks.load.real_report"):
        monkeypatch.setattr(f"{module}.RESULTS", tmp_path)
    left = [1000.0, 1001.0]
    runs = [Run(cell, left, left, [], 0.001, 1.9) for cell in in_turns([0.5, 3.0], 2, [])]
    report(Measurement("emoji", SIDES, 2, Share((0.98, 0.99)), [FAST]), runs)
    latency, deadlines = (tmp_path / f"load-real{kind}.md" for kind in ("", "-deadlines"))
    rows = latency.read_text(encoding="utf-8").splitlines()
    assert "throughput 98.5% (98.0% to 99.0%, 2 rounds)" in rows[0]
    assert sum(row.startswith("| 300% |") for row in rows) == len(WAYS[False])
    assert "| whole loops interleaved | 0.0 (0.0) | 0.0 (0.0) | 4 |" in deadlines.read_text(encoding="utf-8")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".png"}


def test_goodput_counts_pictures_there_by_their_deadline() -> None:
    measurement = Measurement("emoji", SIDES, 4, Share((1.0,)), [FAST])
    run = Run(Cell(1.2, True, "in-time", 0), [0.0, None, 1e9, 0.0], [0.0] * 4, [], 0.0, 1.0)
    assert deadline_row("in-time", by_cell([run], measurement, has_deadlines=True)) == {
        "way": "in-time",
        "120%": "50.0 (100.0)",
        "pictures, most": 4,
    }


def test_a_throughputs_interval_holds_its_median() -> None:
    share = Share((0.95, 0.97, 0.99))
    low, high = share.interval
    assert (low, share.median, high) == (0.95, 0.97, 0.99)
