"""Whose pictures are better for the time? Mezzotint's front beside that of the fastest other engine, at full size.

    python -m benchmarks.fronts sd15-size

Puts two results together: seconds of the full-size model (``benchmarks.peers``), where random weights show no quality,
and quality of the emoji model (``benchmarks.pareto``), where seconds are too short to say much. Mezzotint's seconds are
those of a picture's UNet calls, whole or shallow, of two rows or one, and of the rest: what each takes is the least
squares' answer to all pictures that were timed. The other engine has whole guided steps alone, so that its other step
counts lie on the line through the two that were timed. It is given the quality of a bundle without shortcuts
(``--exact``) at any step count and sampler, since its pictures differ from those in time alone; its time is that of its
fastest configuration.

Guidance for a part of the steps paints pictures that are nearer to the named ones, and other engines do not offer it;
so what is gained with every step guided stands beside what is gained in all.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import RESULTS, publish
from benchmarks.pareto import unbeaten
from mezzotint.engines.evaluations import unet_calls
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import get_sampler, plan
from mezzotint.engines.schedule import NoiseSchedule, Prediction, Spacing

_OURS = "Mezzotint: "
_REST = ("", 0)  # what is no UNet call: text, decode, PNG
_SCHEDULE = NoiseSchedule.from_betas(
    num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
    prediction=Prediction.EPSILON, spacing=Spacing.LEADING, steps_offset=1, set_alpha_to_one=False,
)  # fmt: skip
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


def calls_of(steps: int, shortcuts: str, sampler: str = "ddim") -> Counter[tuple[str, int]]:
    """Return how many UNet calls of each variant and number of rows a guided picture takes, and _REST once."""
    fields = {key: float(value) for key, _, value in (part.partition("=") for part in shortcuts.split(", ")) if key}
    interval = int(fields.pop("cache_interval", 1))
    request = Request(steps=steps, guidance=7.5, cache_interval=interval, **fields)  # type: ignore[arg-type]
    made = unet_calls(plan(get_sampler(sampler)[0], _SCHEDULE, steps), request)
    return Counter([_REST, *((call.variant, len(call.weights)) for call in made)])


@dataclass(frozen=True, slots=True)
class CallSeconds:
    """What Mezzotint's calls take, by variant and number of rows; ``error`` is the largest share by which it is off."""

    by_call: Mapping[tuple[str, int], float]
    error: float

    @classmethod
    def fitted(cls, timed: Sequence[tuple[Counter[tuple[str, int]], float]]) -> "CallSeconds":
        """Return the seconds that explain the timed pictures best, by their relative errors."""
        kinds = sorted({kind for calls, _ in timed for kind in calls})
        counts = np.array([[calls[kind] for kind in kinds] for calls, _ in timed], dtype=np.float64)
        seconds = np.array([took for _, took in timed])
        found, *_ = np.linalg.lstsq(counts / seconds[:, None], np.ones(len(timed)), rcond=None)
        return cls(dict(zip(kinds, found.tolist(), strict=True)), float(np.abs(counts @ found / seconds - 1).max()))

    def of(self, calls: Counter[tuple[str, int]]) -> float | None:
        """Return a picture's seconds, or None where one of its calls was in no picture that was timed."""
        if calls.keys() - self.by_call.keys():
            return None
        return sum(count * self.by_call[kind] for kind, count in calls.items())


def call_seconds(peers: Mapping[str, Any], bundle: str) -> CallSeconds:
    """Return what a bundle's calls take, from all its rows with the checkpoint's own decoder."""
    timed = []
    for row in peers["details"]["rows"]:
        name, *fields = str(row["configuration"]).removeprefix(_OURS).split(", ")
        if name != bundle or any(field.startswith("decoder") for field in fields):
            continue
        shortcuts = ", ".join(field.replace(" ", "=") for field in fields)
        timed += [(calls_of(int(steps), shortcuts), found["seconds"]) for steps, found in row["painted"].items()]
    return CallSeconds.fitted(timed)


def points(peers: Mapping[str, Any], pareto: Mapping[str, Any], bundle: str, exact: str) -> list[Point]:
    """Return Mezzotint's points, and the fastest peer's.

    Args:
        peers: the result of ``benchmarks.peers``.
        pareto: that of ``benchmarks.pareto``.
        bundle: the bundle in both whose times are Mezzotint's.
        exact: the bundle in ``pareto`` whose quality the peer is given.
    """
    own = call_seconds(peers, bundle)
    others = [
        row["painted"]
        for row in peers["details"]["rows"]
        if len(row["painted"]) == 2 and not row["configuration"].startswith(_OURS)
    ]
    found = []
    for row in pareto["details"]["all"]:
        sampler, steps, shortcuts = row["sampler"], row["steps"], row["shortcuts"]
        quality = float(str(row[_QUALITY]).split()[0])
        seconds = own.of(calls_of(steps, shortcuts, sampler)) if row["bundle"] == bundle else None
        if seconds is not None:
            found.append(Point("Mezzotint", sampler, steps, shortcuts, seconds, quality))
        if row["bundle"] == exact and not shortcuts:
            fastest = min(seconds_of(painted, steps) for painted in others)
            found.append(Point("best peer", sampler, steps, "", fastest, quality))
    return found


def front(own: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both seconds and PSNR, fastest first."""
    return unbeaten(own, lambda p: p.seconds, lambda p: p.named_db)


def rows_of(found: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the peer's front, each with Mezzotint's fastest points that lose no more than _LOSS_DB to it."""
    ours = [point for point in found if point.engine == "Mezzotint"]
    guided = [point for point in ours if "guidance_" not in point.shortcuts]
    return [
        {"best peer": f"{peer.sampler} {peer.steps}", "s": round(peer.seconds, 2), "dB": round(peer.named_db, 2)}
        | _compared("Mezzotint", ours, peer)
        | _compared("every step guided", guided, peer)
        for peer in front([point for point in found if point.engine != "Mezzotint"])
    ]


def _compared(name: str, ours: Sequence[Point], peer: Point) -> dict[str, Any]:
    equal = [point for point in ours if point.named_db >= peer.named_db - _LOSS_DB]
    best = min(equal, key=lambda point: point.seconds, default=None)
    return {
        name: f"{best.sampler} {best.steps} {best.shortcuts}".strip() if best else "",
        f"{name}, s": round(best.seconds, 2) if best else "",
        f"{name}, dB": round(best.named_db, 2) if best else "",
        f"{name}, times as fast": round(peer.seconds / best.seconds, 2) if best else "",
    }


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
    own = call_seconds(peers, options.bundle)
    calls = {f"{variant} {rows}".strip(): seconds for (variant, rows), seconds in own.by_call.items()}
    details = {"bundle": options.bundle, "exact": options.exact, "call seconds": calls, "largest error": own.error}
    publish(f"fronts-{options.name}", question, rows_of(found), details)


if __name__ == "__main__":
    main()
