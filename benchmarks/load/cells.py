"""The real run, cell by cell: one way under one load, in turns with the others; finished turns are kept."""

import json
import math
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import CpuShare
from benchmarks.load.disciplines import ByRequest, ByStep, Discipline, Interleaved
from benchmarks.load.engine import Curve
from benchmarks.load.serving import Serve, Sides, by_core, by_request, interleaved
from benchmarks.load.stopwatch import Timed, run_curves, seconds_between
from benchmarks.load.traffic import STEPS, Floats, Traffic, poisson
from mezzotint.server.policy import POLICIES, UNSTEADY

PATIENCE = (4.0, 20.0)  # times a picture's own time alone that it may take


def _by_step(policy: str) -> Discipline:
    return ByStep(POLICIES[policy], policy not in UNSTEADY)


_OTHERS: dict[str, tuple[Serve, Discipline]] = {
    "whole requests batched": (by_request, ByRequest()),
    "whole loops interleaved": (interleaved, Interleaved()),
}
WAYS: Mapping[bool, Mapping[str, tuple[Serve, Discipline]]] = {
    False: {name: (by_core(name), _by_step(name)) for name in ("fcfs", "log-boost")} | _OTHERS,
    True: {name: (by_core(name), _by_step(name)) for name in ("fcfs", "log-boost", "in-time")}
    | {"in-time, refusing": (by_core("in-time", admit_late=False), _by_step("in-time"))}
    | _OTHERS,
}
"""Each way for real and simulated, by whether pictures have deadlines; the one that refuses what will be late is not
simulated as such."""


@dataclass(frozen=True)
class Cell:
    """One turn of one way: ``load`` is a share of what the engine makes at most."""

    load: float
    has_deadlines: bool
    way: str
    turn: int


@dataclass(frozen=True)
class Run:
    """What a cell gave.

    Attributes:
        left: seconds at which pictures were there; None for those not made.
        simulated: the same of the simulator, with the curves of this very run.
        curves: seconds of a call by size and pictures that share it, with those between calls, and of all else.
        between: seconds between two calls.
        cpu: CPU time over wall time.
    """

    cell: Cell
    left: Sequence[float | None]
    simulated: Sequence[float | None]
    curves: Sequence[Sequence[Any]]
    between: float
    cpu: float


def traffic_of(cell: Cell, curves: Sequence[Curve], count: int) -> Traffic:
    """Return a cell's traffic, the same for each way."""
    mean_steps = sum(STEPS) / len(STEPS)
    picture = np.mean([mean_steps * curve.step_seconds + curve.finish_seconds for curve in curves])
    return poisson(
        *(cell.load / float(picture), count),
        zlib.crc32(f"{cell.load} {cell.turn}".encode()),
        step_seconds=[curve.seconds[0] for curve in curves],
        patience=PATIENCE if cell.has_deadlines else None,
    )


def in_turns(loads: Sequence[float], turns: int, only: Sequence[str]) -> list[Cell]:
    """Return the cells in their order: one turn of all, then the next, in which ways go from the last to the first.

    Ways of one load, which are compared, thus run within a minute or two, a drift of the machine meets all, and a run
    that is stopped half way has all loads.
    """
    cells = []
    for turn in range(turns):
        for has_deadlines, ways in WAYS.items():
            names = [name for name in ways if not only or any(part in name for part in only)]
            ordered = names[::-1] if turn % 2 else names
            cells += [Cell(load, has_deadlines, way, turn) for load in loads for way in ordered]
    return cells


def whole_turns(cells: Sequence[Cell], runs: Sequence[Run]) -> list[Run]:
    """Return the runs of turns that all of their load's ways have had: rows of one load pool the same traffic."""
    done = {run.cell for run in runs}
    cut_off = {(cell.load, cell.has_deadlines, cell.turn) for cell in cells if cell not in done}
    return [run for run in runs if (run.cell.load, run.cell.has_deadlines, run.cell.turn) not in cut_off]


def run_cell(cell: Cell, model: Timed, curves: Sequence[Curve], count: int, sides: Sides) -> Run:
    """Serve one cell's traffic for real, then ask the simulator with what its calls took."""
    traffic = traffic_of(cell, curves, count)
    serve, simulate = WAYS[cell.has_deadlines][cell.way]
    with CpuShare() as cpu:
        served = serve(model, traffic, sides)
    between = seconds_between(model.calls, traffic.arrivals, served.dropped)
    own = run_curves(model.calls, between, curves)
    simulated = simulate(traffic, *own)
    curve_lists = [[list(curve.seconds), curve.finish_seconds] for curve in own]
    return Run(cell, _listed(served.left), _listed(simulated), curve_lists, between, cpu.value)


def run_all(
    cells: Iterable[Cell],
    model: Timed,
    curves: Sequence[Curve],
    *,
    count: int,
    sides: Sides,
    path: Path,
    until: float = math.inf,
) -> list[Run]:
    """Run every cell that ``path`` does not hold yet, and return all that there are; each is written when it is done.

    None begins after ``until``, in seconds of the monotonic clock.
    """
    known = {run.cell: run for run in read_runs(path)}
    found = []
    for cell in cells:
        if cell not in known and time.monotonic() > until:
            continue
        if cell not in known:
            known[cell] = run_cell(cell, model, curves, count, sides)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(known[cell])) + "\n")
            print(progress(known[cell], traffic_of(cell, curves, count)), flush=True)
        found.append(known[cell])
    return found


def read_runs(path: Path) -> list[Run]:
    """Return the runs that a file holds; a line that was cut off is left out."""
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        runs.append(Run(**(fields | {"cell": Cell(**fields["cell"])})))
    return runs


def progress(run: Run, traffic: Traffic) -> str:
    """Return a line about a run that is done."""
    latency = seconds(run.left) - traffic.arrivals
    made = latency[np.isfinite(latency)]
    kind = "with deadlines" if run.cell.has_deadlines else "no deadlines"
    mean = f"mean {made.mean():.2f} s" if len(made) else "none made"
    return f"{run.cell.load:.0%} {kind}, turn {run.cell.turn + 1}, {run.cell.way}: {len(made)} made, {mean}"


def seconds(values: Sequence[float | None]) -> Floats:
    """Return a run's seconds as an array; infinity for pictures that were not made."""
    return np.array([np.inf if value is None else value for value in values])


def _listed(values: Floats) -> list[float | None]:
    return [round(value, 5) if np.isfinite(value) else None for value in values.tolist()]
