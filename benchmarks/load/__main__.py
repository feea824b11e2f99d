"""Which order of the queue serves best? Every policy of the server and other servers' ways, under the same traffic.

    python -m benchmarks.load --seeds 10 --count 20000

Pictures of 4, 10, 25 and 50 steps come at random, independently; loads are shares of what the engine can make at most.
An engine gains nothing by sharing calls (a large UNet on a CPU), or makes 2.1 times as many at 8 pictures a call (a
small one, a GPU). Ratios are to first come, first served by steps, which is what filling a running batch does; they and
their 95 % intervals are of the same traffic, seed by seed.
"""

import argparse
import itertools
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import RESULTS, publish
from benchmarks.load.disciplines import ByRequest, ByStep, Discipline, Interleaved
from benchmarks.load.engine import Curve
from benchmarks.load.plot import plot_frontier
from benchmarks.load.statistics import BASE, Measured, in_time, interval, latencies, latency_row, ratios
from benchmarks.load.traffic import STEPS, poisson
from mezzotint.server.policy import POLICIES, UNSTEADY

ENGINES: Mapping[str, Curve] = {"no gain": Curve((1.0,)), "2.1 × at 8": Curve.of_gain(2.1, 8)}
LOADS = (0.5, 0.8, 0.95)
OVERLOADS = (0.5, 0.8, 0.95, 1.2, 3.0)
PATIENCE = (4.0, 20.0)  # times a picture's own time alone that it may take


@dataclass(frozen=True)
class Case:
    """One simulation; ``engine`` and ``way`` are names."""

    engine: str
    load: float
    has_deadlines: bool
    way: str
    seed: int
    count: int


def ways(curve: Curve) -> dict[str, Discipline]:
    """Return all ways by name; loops that share nothing are left out where they could not keep up."""
    found: dict[str, Discipline] = {name: ByStep(POLICIES[name], name not in UNSTEADY) for name in POLICIES}
    found["whole requests batched"] = ByRequest()
    if curve.most == 1:
        found["whole loops interleaved"] = Interleaved()
    return found


def cases(seeds: int, count: int) -> list[Case]:
    """Return all simulations; those with deadlines are shorter, since many are dropped."""
    asked = [(load, False, count) for load in LOADS] + [(load, True, count // 4) for load in OVERLOADS]
    return [
        Case(engine, load, has_deadlines, way, seed, own_count)
        for (engine, curve), (load, has_deadlines, own_count) in itertools.product(ENGINES.items(), asked)
        for way in ways(curve)
        for seed in range(seeds)
    ]


def run(case: Case) -> Measured:
    """Simulate one case."""
    curve = ENGINES[case.engine]
    rate = case.load * len(STEPS) / (sum(STEPS) * curve.step_seconds)
    patience = PATIENCE if case.has_deadlines else None
    traffic = poisson(rate, case.count, case.seed, step_seconds=curve.seconds[:1], patience=patience)
    left = ways(curve)[case.way](traffic, curve)
    return in_time(traffic, left) if case.has_deadlines else latencies(traffic, left, curve.seconds[0])


def by_way(
    found: Mapping[Case, Measured], engine: str, load: float, *, has_deadlines: bool
) -> dict[str, list[Measured]]:
    """Return what each way's seeds gave under one load of one engine."""
    chosen: dict[str, list[Measured]] = {}
    for case, measured in found.items():
        if (case.engine, case.load, case.has_deadlines) == (engine, load, has_deadlines):
            chosen.setdefault(case.way, []).append(measured)
    return chosen


def report_latency(found: Mapping[Case, Measured], details: Mapping[str, Any]) -> None:
    """Write table, JSON and plot of the runs without deadlines."""
    rows, panels = [], {}
    for engine, load in itertools.product(ENGINES, LOADS):
        seeds = by_way(found, engine, load, has_deadlines=False)
        panels[f"{engine}, load {load:.0%}"] = {way: ratios(own, seeds[BASE]) for way, own in seeds.items()}
        rows += [
            {"engine": engine, "load": f"{load:.0%}", "way": way} | latency_row(own, seeds[BASE])
            for way, own in seeds.items()
        ]
    plot_frontier(panels, RESULTS / "load-simulated.png")
    publish("load-simulated", f"Which order of the queue serves best? Simulated; × {BASE}", rows, details)


def report_deadlines(found: Mapping[Case, Measured], details: Mapping[str, Any]) -> None:
    """Write table and JSON of the runs with deadlines."""
    rows: list[dict[str, Any]] = []
    for engine in ENGINES:
        loads = {load: by_way(found, engine, load, has_deadlines=True) for load in OVERLOADS}
        for way in loads[OVERLOADS[0]]:
            shares = {load: interval([float(m["in time"]) for m in own[way]]) for load, own in loads.items()}
            cells = {f"{load:.0%}": f"{share.mean:.1f} ± {share.half:.1f}" for load, share in shares.items()}
            rows.append({"engine": engine, "way": way} | cells)
    low, high = PATIENCE
    question = f"How many pictures are in time, in %, of {low:g} to {high:g} times their own? Simulated, by load"
    publish("load-deadlines", question, rows, details)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="runs of each way; intervals need two at least")
    parser.add_argument("--count", type=int, default=20_000, help="pictures of a run, a quarter of it with deadlines")
    options = parser.parse_args(arguments)
    if options.seeds < 2:
        parser.error(f"--seeds {options.seeds}: an interval needs two at least")
    asked = cases(options.seeds, options.count)
    with ProcessPoolExecutor() as pool:
        found = dict(zip(asked, pool.map(run, asked, chunksize=4), strict=True))
    details = {"seeds": options.seeds, "count": options.count, "steps": STEPS}
    report_latency(found, details)
    report_deadlines(found, details)


if __name__ == "__main__":
    main()
