"""Whose pictures are better for the time? Mezzotint's front beside that of the fastest other engine, at full size.

    python -m benchmarks.fronts sd15-size

Puts two results together: seconds of the full-size model (``benchmarks.peers``), where random weights show no quality,
and quality of the emoji model (``benchmarks.pareto``), where seconds are too short to say much. Seconds of step counts
that were not timed lie on the line through the two that were. The other engine is given the quality of a bundle without
shortcuts (``--exact``) at any step count and sampler, since its pictures differ from those in time alone; its time is
that of its fastest configuration.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, publish
from benchmarks.pareto import unbeaten

_OURS = "Mezzotint: "
_QUALITY = "PSNR to the named picture, dB"
_LOSS_DB = 0.3


@dataclass(frozen=True, slots=True)
class Point:
    """One way to make a picture: who and how, its seconds at full size, and its mean PSNR to the named picture."""

    engine: str
    sampler: str
    steps: int
    shortcuts: str
    seconds: float
    named_db: float


def seconds_of(painted: Mapping[str, Mapping[str, float]], steps: int) -> float:
    """Return the seconds of a picture on the line through the two step counts that were timed."""
    (few, many) = sorted(int(count) for count in painted)
    low, high = painted[str(few)]["seconds"], painted[str(many)]["seconds"]
    return low + (high - low) * (steps - few) / (many - few)


def points(peers: Mapping[str, Any], pareto: Mapping[str, Any], bundle: str, exact: str) -> list[Point]:
    """Return Mezzotint's points with every shortcut that was timed, and the fastest peer's.

    Args:
        peers: the result of ``benchmarks.peers``.
        pareto: that of ``benchmarks.pareto``.
        bundle: the bundle in both whose times are Mezzotint's.
        exact: the bundle in ``pareto`` whose quality the peer is given.
    """
    timed = {row["configuration"]: row["painted"] for row in peers["details"]["rows"] if len(row["painted"]) == 2}
    others = [painted for name, painted in timed.items() if not name.startswith(_OURS)]
    found = []
    for row in pareto["details"]["all"]:
        sampler, steps, shortcuts = row["sampler"], row["steps"], row["shortcuts"]
        quality = float(str(row[_QUALITY]).split()[0])
        name = ", ".join([_OURS + bundle, *shortcuts.replace("=", " ").split(", ")]) if shortcuts else _OURS + bundle
        if row["bundle"] == bundle and name in timed:
            found.append(Point("Mezzotint", sampler, steps, shortcuts, seconds_of(timed[name], steps), quality))
        if row["bundle"] == exact and not shortcuts:
            fastest = min(seconds_of(painted, steps) for painted in others)
            found.append(Point("best peer", sampler, steps, "", fastest, quality))
    return found


def front(own: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both seconds and PSNR, fastest first."""
    return unbeaten(own, lambda p: p.seconds, lambda p: p.named_db)


def rows_of(found: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the peer's front, each with Mezzotint's fastest point that loses no more than _LOSS_DB to it."""
    ours = [point for point in found if point.engine == "Mezzotint"]
    rows = []
    for peer in front([point for point in found if point.engine != "Mezzotint"]):
        equal = [point for point in ours if point.named_db >= peer.named_db - _LOSS_DB]
        best = min(equal, key=lambda point: point.seconds, default=None)
        rows.append(
            {
                "best peer": f"{peer.sampler} {peer.steps}",
                "s": round(peer.seconds, 2),
                "dB": round(peer.named_db, 2),
                "Mezzotint": f"{best.sampler} {best.steps} {best.shortcuts}".strip() if best else "",
                "its s": round(best.seconds, 2) if best else "",
                "its dB": round(best.named_db, 2) if best else "",
                "times as fast": round(peer.seconds / best.seconds, 2) if best else "",
            }
        )
    return rows


def plot(found: Sequence[Point], file: Path) -> None:
    """Draw all points and both fronts, as PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for i, engine in enumerate(("best peer", "Mezzotint")):
        own = [point for point in found if point.engine == engine]
        axes.scatter([p.seconds for p in own], [p.named_db for p in own], s=18, color=f"C{i}", alpha=0.5)
        best = front(own)
        axes.plot([p.seconds for p in best], [p.named_db for p in best], color=f"C{i}", label=engine)
        for point in best:
            label = re.sub(
                "cache_interval=|guidance_end=", lambda m: m[0][0], f"{point.sampler} {point.steps} {point.shortcuts}"
            )
            xy = (point.seconds, point.named_db)
            axes.annotate(label, xy, xytext=(4, -9), textcoords="offset points", fontsize=6)
    axes.set(xscale="log", xlabel="seconds of a picture, full size", ylabel="mean PSNR to the named picture, dB")
    axes.xaxis.set_major_formatter(lambda s, _: f"{s:g}")
    axes.xaxis.set_minor_formatter(lambda s, _: f"{s:g}")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result of benchmarks.peers")
    parser.add_argument("--pareto", default="pareto", help="the result of benchmarks.pareto")
    parser.add_argument("--bundle", default="int8-bf16", help="whose times are Mezzotint's, in both results")
    parser.add_argument("--exact", default="int8-bf16", help="the bundle whose quality the other engine is given")
    options = parser.parse_args()
    peers, pareto = (
        json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        for name in (f"peers-{options.name}", options.pareto)
    )
    found = points(peers, pareto, options.bundle, options.exact)
    plot(found, RESULTS / f"fronts-{options.name}.png")
    question = (
        f"Whose pictures are better for the time? Seconds of {options.name}, quality of the emoji model; Mezzotint's "
        f"fastest setting that loses no more than {_LOSS_DB} dB to the best peer's"
    )
    publish(f"fronts-{options.name}", question, rows_of(found), {"bundle": options.bundle, "exact": options.exact})


if __name__ == "__main__":
    main()
