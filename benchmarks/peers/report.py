"""From turns to rows: medians over the rounds, ratios within a round, and the plot."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.peers.turns import Turn

_EQUAL_DB = 100.0  # above what one level in one pixel gives
_OURS = "Mezzotint"
_INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "avx_vnni", "amx_")


def instruction_sets(cpuinfo: str) -> list[str]:
    """Return the vector instruction sets that /proc/cpuinfo's text names."""
    flags = next((line.split(":", 1)[1].split() for line in cpuinfo.splitlines() if line.startswith("flags")), [])
    return sorted(flag for flag in flags if flag.startswith(_INSTRUCTION_SETS))


def pictures(turns: Sequence[Turn], steps: int) -> dict[str, dict[int, dict[str, Any]]]:
    """Return what was measured of the pictures with so many steps: configuration → round → picture."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for turn in turns:
        for picture in turn.result.get("pictures", []):
            if picture["steps"] == steps and not picture.get("reason"):
                found.setdefault(turn.configuration, {})[turn.round] = picture
    return found


def best_peer(by_name: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str:
    """Return the configuration of a peer with the lowest median, or "" where none has painted."""
    medians = {
        name: statistics.median(picture["total_s"] for picture in rounds.values())
        for name, rounds in by_name.items()
        if not name.startswith(_OURS)
    }
    return min(medians, key=lambda name: medians[name], default="")


def speed(rounds: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]) -> float | None:
    """Return how many times as fast as ``base``: the median over the rounds that both have, each its own ratio."""
    shared = rounds.keys() & base.keys()
    return statistics.median(base[i]["total_s"] / rounds[i]["total_s"] for i in shared) if shared else None


@dataclass(frozen=True, slots=True)
class Painted:
    """What one configuration took for pictures of one step count: medians over its rounds.

    Attributes:
        seconds: of a whole picture.
        lowest: the fastest round's, as ``highest`` is the slowest's.
        speed: times as fast as the fastest peer.
    """

    seconds: float
    lowest: float
    highest: float
    speed: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration's line of the table; a figure is None where nothing was measured.

    Attributes:
        painted: by step count.
        step_s: the UNet's share of a step, from the pictures with the most steps.
        rounds: how many were taken.
        reason: why there is no picture, or not one of every step count.
    """

    configuration: str
    painted: dict[int, Painted]
    step_s: float | None
    decode_s: float | None
    text_s: float | None
    load_s: float | None
    warm_up_s: float | None
    cpu_over_wall: float | None
    peak_mib: float | None
    rounds: int
    reason: str
    psnr_db: float | None = None

    def cells(self, steps: Sequence[int]) -> dict[str, Any]:
        """Return the table's cells."""
        cells: dict[str, Any] = {"configuration": self.configuration}
        for count in steps:
            painted = self.painted.get(count)
            spread = f"{painted.seconds:.2f} ({painted.lowest:.2f}–{painted.highest:.2f})" if painted else ""
            cells[f"{count} steps, s"] = spread
            cells[f"{count} steps × best peer"] = _cell(painted.speed if painted else None, 2)
        return cells | {
            "UNet, s a step": _cell(self.step_s, 3),
            "decode s": _cell(self.decode_s, 2),
            "text s": _cell(self.text_s, 2),
            "load s": _cell(self.load_s, 1),
            "warm-up s": _cell(self.warm_up_s, 1),
            "cpu/wall": _cell(self.cpu_over_wall, 2),
            "peak MiB": _cell(self.peak_mib, 0),
            "PSNR dB": _cell(self.psnr_db, 1),
            "rounds": self.rounds,
            "why not": self.reason.replace("|", "/"),
        }


def rows(names: Sequence[str], turns: Sequence[Turn], steps: Sequence[int], unmade: Mapping[str, str]) -> list[Row]:
    """Return one row per configuration, the fastest at the most steps first and those without a picture last.

    ``unmade`` holds the reasons of configurations that never had a turn.
    """
    measured = {count: pictures(turns, count) for count in steps}
    bases = {count: measured[count].get(best_peer(measured[count]), {}) for count in steps}
    made = []
    for name in names:
        painted = {count: _painted(measured[count][name], bases[count]) for count in steps if name in measured[count]}
        results = [turn for turn in turns if turn.configuration == name]
        made.append(_row(name, painted, measured, results, unmade.get(name, "")))
    most = max(steps)
    return sorted(made, key=lambda row: row.painted[most].seconds if most in row.painted else math.inf)


def _painted(rounds: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping[str, Any]]) -> Painted:
    totals = [picture["total_s"] for picture in rounds.values()]
    return Painted(statistics.median(totals), min(totals), max(totals), speed(rounds, base))


def _row(
    name: str,
    painted: dict[int, Painted],
    measured: Mapping[int, Mapping[str, Mapping[int, Mapping[str, Any]]]],
    turns: Sequence[Turn],
    unmade: str,
) -> Row:
    found = [(count, picture) for count in painted for picture in measured[count][name].values()]
    results = [turn.result for turn in turns if turn.result]
    most = max(painted, default=0)
    reasons = [unmade, *(turn.reason for turn in turns)]
    reasons += [picture.get("reason", "") for result in results for picture in result["pictures"]]
    return Row(
        configuration=name,
        painted=painted,
        step_s=_median(_stage(picture, "unet") / count for count, picture in found if count == most),
        decode_s=_median(_stage(picture, "decode") for _, picture in found),
        text_s=_median(_stage(picture, "text") for _, picture in found),
        load_s=_median(result["load_s"] for result in results),
        warm_up_s=_median(result["warm_up_s"] for result in results),
        cpu_over_wall=_median(picture["cpu_s"] / picture["total_s"] for _, picture in found),
        peak_mib=_median(result["peak_rss_mib"] for result in results),
        rounds=len(results),
        reason=next(filter(None, reasons), ""),
    )


def _stage(picture: Mapping[str, Any], stage: str) -> float:
    return math.fsum(picture["stages"].get(stage, []))


def _median(values: Iterable[float]) -> float | None:
    listed = list(values)
    return statistics.median(listed) if listed else None


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def psnr_db(a: Path, b: Path) -> float | None:
    """Return the PSNR of two picture files, 100 where they are equal, or None where one is not there."""
    if not (a.is_file() and b.is_file()):
        return None
    left, right = (np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) for path in (a, b))
    error = float(np.mean((left - right) ** 2))
    return 10 * math.log10(255**2 / error) if error else _EQUAL_DB


def plot(found: Sequence[Row], steps: Sequence[int], title: str, path: Path) -> None:
    """Draw each row's seconds as bars, one panel per step count."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [row for row in found if row.painted]
    names = [row.configuration for row in drawn]
    size = (5 + 4 * len(steps), 1.5 + 0.28 * len(drawn))
    figure, panels = plt.subplots(1, len(steps), figsize=size, sharey=True, squeeze=False)
    for panel, count in zip(panels[0], steps, strict=True):
        seconds = [row.painted[count].seconds if count in row.painted else 0.0 for row in drawn]
        colours = ["tab:orange" if name.startswith(_OURS) else "tab:blue" for name in names]
        bars = panel.barh(names, seconds, color=colours)
        panel.bar_label(bars, labels=[f"{value:.1f}" if value else "" for value in seconds], padding=2, fontsize=8)
        panel.set_xlabel(f"seconds, {count} steps")
        panel.margins(x=0.15)
    panels[0][0].invert_yaxis()
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
