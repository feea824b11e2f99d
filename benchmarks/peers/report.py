"""From turns to rows: medians over the rounds, ratios within a round, and the plot."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.peers.turns import Turn

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


def rows(names: Sequence[str], turns: Sequence[Turn], steps: Sequence[int], unmade: Mapping[str, str]) -> list[Any]:
    """Return one row per configuration, the fastest at the most steps first and those without a picture last.

    ``unmade`` holds the reasons of configurations that never had a turn.
    """
    measured = {count: pictures(turns, count) for count in steps}
    bases = {count: measured[count].get(best_peer(measured[count]), {}) for count in steps}
    made = [_row(name, [turn for turn in turns if turn.configuration == name], measured, bases) for name in names]
    for row in made:
        row["why not"] = row["why not"] or unmade.get(row["configuration"], "")
    last = f"{max(steps)} steps s"
    return sorted(made, key=lambda row: (row[last] == "", row[last] or 0.0))


def _row(
    name: str,
    turns: Sequence[Turn],
    measured: Mapping[int, Mapping[str, Mapping[int, Mapping[str, Any]]]],
    bases: Mapping[int, Mapping[int, Mapping[str, Any]]],
) -> dict[str, Any]:
    row: dict[str, Any] = {"configuration": name}
    for count, by_name in measured.items():
        rounds = by_name.get(name, {})
        totals = [picture["total_s"] for picture in rounds.values()]
        row[f"{count} steps s"] = round(statistics.median(totals), 2) if totals else ""
        row[f"{count} steps, lowest–highest"] = f"{min(totals):.2f}–{max(totals):.2f}" if totals else ""
        ratio = speed(rounds, bases[count]) if totals else None
        row[f"{count} steps × best peer"] = "" if ratio is None else round(ratio, 2)
    found = [(count, picture) for count, by_name in measured.items() for picture in by_name.get(name, {}).values()]
    results = [turn.result for turn in turns if turn.result]
    # a picture of fewer steps can hold another mix of calls, so a step's time is taken from the most steps
    most = max((count for count, _ in found), default=0)
    row["UNet s a step"] = _median([_stage(p, "unet") / count for count, p in found if count == most], 3)
    row["decode s"] = _median([_stage(picture, "decode") for _, picture in found], 2)
    row["text s"] = _median([_stage(picture, "text") for _, picture in found], 2)
    row["load s"] = _median([result["load_s"] for result in results], 1)
    row["warm-up s"] = _median([result["warm_up_s"] for result in results], 1)
    row["cpu/wall"] = _median([picture["cpu_s"] / picture["total_s"] for _, picture in found], 2)
    row["peak MiB"] = _median([result["peak_rss_mib"] for result in results], 0)
    row["rounds"] = len(results)
    said = [picture.get("reason", "") for result in results for picture in result["pictures"]]
    row["why not"] = next((reason for reason in [*(turn.reason for turn in turns), *said] if reason), "")
    return row


def _stage(picture: Mapping[str, Any], stage: str) -> float:
    return sum(picture["stages"].get(stage, []))


def _median(values: Sequence[float], digits: int) -> float | int | str:
    if not values:
        return ""
    return round(statistics.median(values), digits) if digits else round(statistics.median(values))


def psnr_db(a: Path, b: Path) -> float | None:
    """Return the PSNR of two picture files, infinite where equal, or None where one is not there."""
    if not (a.is_file() and b.is_file()):
        return None
    left, right = (np.asarray(Image.open(path).convert("RGB"), dtype=np.float64) for path in (a, b))
    error = float(np.mean((left - right) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def plot(found: Sequence[Mapping[str, Any]], steps: Sequence[int], title: str, path: Path) -> None:
    """Draw each row's seconds as bars, one panel per step count."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [row for row in found if any(row[f"{count} steps s"] != "" for count in steps)]
    names = [row["configuration"] for row in drawn]
    figure, panels = plt.subplots(
        1, len(steps), figsize=(5 + 4 * len(steps), 1.5 + 0.28 * len(drawn)), sharey=True, squeeze=False
    )
    for panel, count in zip(panels[0], steps, strict=True):
        seconds = [row[f"{count} steps s"] or 0.0 for row in drawn]
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
