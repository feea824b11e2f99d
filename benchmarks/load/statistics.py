"""What is counted of simulated pictures, and how seeds become one row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.load.traffic import Floats, Traffic

BASE = "fcfs"  # what ratios are to: by steps, it is what fills a running batch with whoever waits longest
_WARM_UP = 0.05  # share of the pictures, from an empty queue on, that is not counted
_T_975 = (
    *(12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10),
    *(2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04),
)  # Student's t of 1, 2, … degrees of freedom; the last stands for more, a little wide
_PERCENTILES = np.arange(1, 100)

Measured = Mapping[str, Floats]
"""What one seed gives: figures by name, each a number or, for percentiles, an array."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over seeds, and half of its 95 % interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}"


def latencies(traffic: Traffic, left: Floats, step_seconds: float) -> Measured:
    """Return mean and percentiles of latency, and the 99th of slowdown: latency over a picture's own time alone."""
    counted = slice(int(len(traffic) * _WARM_UP), None)
    latency = (left - traffic.arrivals)[counted]
    slowdown = latency / (traffic.steps[counted] * step_seconds)
    return {
        "mean": latency.mean(),
        "percentiles": np.percentile(latency, _PERCENTILES),
        "slowdown": np.percentile(slowdown, 99),
    }


def in_time(traffic: Traffic, left: Floats) -> Measured:
    """Return the percentage of pictures that were there by their deadline."""
    counted = slice(int(len(traffic) * _WARM_UP), None)
    return {"in time": 100 * (left <= traffic.deadlines)[counted].mean()}


def interval(values: Sequence[float]) -> Interval:
    """Return mean and interval of one figure over two seeds or more, by Student's t."""
    n = len(values)
    t = _T_975[min(n - 1, len(_T_975)) - 1]
    return Interval(float(np.mean(values)), t * float(np.std(values, ddof=1)) / n**0.5)


def ratios(own: Sequence[Measured], base: Sequence[Measured]) -> dict[str, Interval]:
    """Return the mean, p99 and p99 slowdown as ratios to ``base``, seed by seed, and the worst percentile's."""
    pairs = list(zip(own, base, strict=True))
    percentiles = np.array([o["percentiles"] / b["percentiles"] for o, b in pairs])
    worst = int(percentiles.mean(axis=0).argmax())
    return {
        "mean": interval([float(o["mean"] / b["mean"]) for o, b in pairs]),
        "p99": interval(percentiles[:, -1].tolist()),
        "p99 slowdown": interval([float(o["slowdown"] / b["slowdown"]) for o, b in pairs]),
        f"worst percentile (p{_PERCENTILES[worst]})": interval(percentiles[:, worst].tolist()),
    }


def latency_row(own: Sequence[Measured], base: Sequence[Measured]) -> dict[str, Any]:
    """Return the cells of one way of scheduling: seconds, and ratios to ``base``."""
    found = ratios(own, base)
    *named, (worst, value) = found.items()
    cells: dict[str, Any] = {"mean s": round(float(np.mean([o["mean"] for o in own])), 1)}
    return cells | {f"{key} ×": str(ratio) for key, ratio in named} | {"worst percentile ×": f"{value} {worst[17:]}"}
