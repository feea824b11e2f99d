"""What the real run found: two tables with their JSON and plots, each way's turns pooled, the simulator beside it."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, publish
from benchmarks.load.cells import WAYS, Run, seconds, traffic_of
from benchmarks.load.engine import Curve
from benchmarks.load.real_plot import plot_distributions, plot_goodput
from benchmarks.load.serving import Sides
from benchmarks.load.statistics import BASE
from benchmarks.load.throughput import Share
from benchmarks.load.traffic import Floats


@dataclass(frozen=True)
class Measurement:
    """What was asked, and what was measured of the engines before.

    Attributes:
        count: pictures of a turn of a way.
    """

    bundle: str
    sides: Sides
    count: int
    share: Share
    curves: Sequence[Curve]

    def details(self, runs: Sequence[Run]) -> dict[str, Any]:
        """Return what the JSON says beside the rows."""
        return {
            "seconds by size and pictures a call": [curve.seconds for curve in self.curves],
            "text and decoding s, by size": [curve.finish_seconds for curve in self.curves],
            "throughput, by round": self.share.rounds,
            "runs": [asdict(run) for run in runs],
        }


@dataclass(frozen=True)
class Pooled:
    """A way's turns under one load: seconds of each picture, infinite for one that was not made.

    Attributes:
        alone: what each picture takes by itself.
        patience: how long each may take.
    """

    latency: Floats
    simulated: Floats
    alone: Floats
    patience: Floats
    runs: Sequence[Run]

    def in_time(self, latency: Floats) -> float:
        """Return the percentage of pictures there by their deadline."""
        return 100 * float((latency <= self.patience).mean())


def pooled(runs: Sequence[Run], measurement: Measurement) -> Pooled:
    """Put a way's turns together."""
    columns = []
    for run in runs:
        traffic = traffic_of(run.cell, measurement.curves, measurement.count)
        own = [measurement.curves[size] for size in traffic.sizes]
        alone = traffic.steps * [curve.seconds[0] for curve in own] + [curve.finish_seconds for curve in own]
        left, simulated = seconds(run.left), seconds(run.simulated)
        columns.append(
            (left - traffic.arrivals, simulated - traffic.arrivals, alone, traffic.deadlines - traffic.arrivals)
        )
    latency, simulated, alone, patience = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Pooled(latency, simulated, alone, patience, runs)


def by_cell(runs: Sequence[Run], measurement: Measurement, *, has_deadlines: bool) -> dict[float, dict[str, Pooled]]:
    """Return each load's ways, pooled."""
    grouped: dict[float, dict[str, list[Run]]] = {}
    for run in runs:
        if run.cell.has_deadlines == has_deadlines:
            grouped.setdefault(run.cell.load, {}).setdefault(run.cell.way, []).append(run)
    return {
        load: {way: pooled(own, measurement) for way, own in ways.items()} for load, ways in sorted(grouped.items())
    }


def latency_row(load: float, way: str, own: Pooled, base: Pooled | None) -> dict[str, Any]:
    """Return a way's row: seconds, the simulator's ratio, and the mean and p99 beside ``base``'s."""
    p99, simulated_p99 = np.percentile(own.latency, 99), np.percentile(own.simulated, 99)
    row: dict[str, Any] = {
        "load": f"{load:.0%}",
        "way": way,
        "pictures": len(own.alone),
        "mean s": round(float(own.latency.mean()), 2),
        "real / simulated": round(float(own.latency.mean() / own.simulated.mean()), 2),
        "p99 s": round(float(p99), 2),
        "p99, real / simulated": round(float(p99 / simulated_p99), 2),
        "p99 slowdown": round(float(np.percentile(own.latency / own.alone, 99)), 1),
    }
    if base is not None:
        row[f"mean, × {BASE}"] = round(float(own.latency.mean() / base.latency.mean()), 2)
        row[f"p99, × {BASE}"] = round(float(p99 / np.percentile(base.latency, 99)), 2)
    row["ms between calls"] = round(1e3 * statistics.fmean(run.between for run in own.runs), 2)
    return row | {"cpu/wall": round(statistics.fmean(run.cpu for run in own.runs), 2)}


def deadline_row(way: str, loads: Mapping[float, Mapping[str, Pooled]]) -> dict[str, Any]:
    """Return a way's row: the percentage in time by load, the simulator's in brackets."""
    cells = {}
    for load, ways in loads.items():
        if way in ways:
            own = ways[way]
            cells[f"{load:.0%}"] = f"{own.in_time(own.latency):.1f} ({own.in_time(own.simulated):.1f})"
    most = max(len(ways[way].alone) for ways in loads.values() if way in ways)
    return {"way": way} | cells | {"pictures, most": most}


def report(measurement: Measurement, runs: Sequence[Run]) -> None:
    """Write tables, JSON and plots."""
    about = (
        f"{measurement.bundle}, {' and '.join(f'{side}²' for side in measurement.sides)} pixels, "
        f"turns of {measurement.count} pictures"
    )
    plain = by_cell(runs, measurement, has_deadlines=False)
    rows = [latency_row(load, way, own, ways.get(BASE)) for load, ways in plain.items() for way, own in ways.items()]
    if rows:
        question = f"Is it so on a real engine? {about}; throughput {measurement.share} of the engines' own"
        _publish("load-real", question, rows, measurement, [r for r in runs if not r.cell.has_deadlines])
        panels = {
            f"{load:.0%}": {way: (own.latency, own.simulated) for way, own in ways.items()}
            for load, ways in plain.items()
        }
        plot_distributions(panels, RESULTS / "load-real.png")
    late = by_cell(runs, measurement, has_deadlines=True)
    if late:
        ways = [way for way in WAYS[True] if any(way in own for own in late.values())]
        question = f"How many pictures are in time, in %, for real (and simulated), by load? {about}"
        _publish(
            "load-real-deadlines",
            question,
            [deadline_row(way, late) for way in ways],
            measurement,
            [r for r in runs if r.cell.has_deadlines],
        )
        lines = {
            way: {
                load: (own[way].in_time(own[way].latency), own[way].in_time(own[way].simulated))
                for load, own in late.items()
                if way in own
            }
            for way in ways
        }
        plot_goodput(lines, RESULTS / "load-real-deadlines.png")


def _publish(
    name: str, question: str, rows: Sequence[Mapping[str, Any]], measurement: Measurement, runs: Sequence[Run]
) -> None:
    publish(name, question, rows, measurement.details(runs))
    page: Path = RESULTS / f"{name}.md"
    page.write_text(f"{page.read_text(encoding='utf-8')}\n![{name}]({name}.png)\n", encoding="utf-8")
