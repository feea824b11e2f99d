"""Which settings give the best pictures for the time? Every combination of a few, on the emoji model.

    python -m benchmarks.pareto --rounds 0 --bundle fp32=build/emoji-fp32 --bundle int8=build/emoji-int8
    python -m benchmarks.pareto --bundle fp32=build/emoji-fp32 --bundle int8=build/emoji-int8

The first paints, and keeps what it has painted; the second then only measures times, for which the machine should do
nothing else. A time is what the engines of one picture take, made alone; all settings are timed in turns.
"""

import argparse
import itertools
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.quality import Case, Judge, draw_cases, ground_as_asked, named_psnr_db, paint
from benchmarks.quality.metrics import Estimate, Floats, bootstrap, share
from benchmarks.quality.paint import DEFAULTS, STORE, request_for
from benchmarks.quality.swap import Candidate, read_candidate, read_setting, request_defaults
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.errors import InvalidRequest, MezzotintError
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model

AXES = {
    "sampler": "ddim,dpmpp_2m,euler",
    "steps": "4,6,8,10,15,20,25",
    "cache_interval": "1,2,3,5",
    "guidance_end": "1.0,0.6",
}
T = TypeVar("T")

_PLAIN = ("sampler", "steps")  # what is a setting, and no shortcut
_COMMA = re.compile(r",(?![^(]*\))")  # outside brackets: cache_schedule=(0,5),(0,3,6)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to ask one bundle; ``fields`` are those of Request that differ from its defaults, sampler and steps."""

    candidate: Candidate
    fields: Mapping[str, Any]

    @property
    def plain(self) -> tuple[str, str, int]:
        """What it shares with the same setting without shortcuts."""
        return self.candidate.name, self.fields["sampler"], self.fields["steps"]

    @property
    def shortcuts(self) -> str:
        """Its other fields, as they are typed."""
        return ", ".join(f"{key}={value}" for key, value in self.fields.items() if key not in _PLAIN)


@dataclass(frozen=True, slots=True)
class Point:
    """A setting with what it costs and gives: engine milliseconds of a picture, and per picture what it shows."""

    setting: Setting
    ms: float
    named_db: Floats
    retrieved: Estimate
    ground: Estimate

    @property
    def mean_db(self) -> float:
        """The mean PSNR to the named picture."""
        return float(self.named_db.mean())


def combinations(candidate: Candidate, axes: Mapping[str, str]) -> list[Setting]:
    """Return every combination of the axes' values for one candidate. Raises InvalidRequest."""
    defaults = request_defaults()
    values = [[read_setting(key, text.strip()) for text in _COMMA.split(texts)] for key, texts in axes.items()]
    settings = []
    for chosen in itertools.product(*values):
        fields = {k: v for k, v in zip(axes, chosen, strict=True) if k in _PLAIN or v != defaults[k]}
        settings.append(Setting(candidate, {**candidate.settings, **fields}))
    return settings


def possible(model: Model, settings: Sequence[Setting], case: Case) -> list[Setting]:
    """Return the settings that a bundle can serve, and say which it cannot."""
    served: list[Setting] = []
    refused: dict[str, int] = {}
    for setting in settings:
        try:
            model.start(request_for(model, case, {**DEFAULTS, **setting.fields}))
            served.append(setting)
        except MezzotintError as error:
            refused[str(error)] = refused.get(str(error), 0) + 1
    for message, count in refused.items():
        print(f"{model.name}: {count} settings are left out: {message}", file=sys.stderr)
    return served


def engine_ms(model: Model, setting: Setting, case: Case) -> float:
    """Return the milliseconds that the engines take for one picture, made alone."""
    request = request_for(model, case, {**DEFAULTS, **setting.fields}, setting.candidate.noise)
    (images,) = generate(model, [request])
    return sum(images[0].stage_ms.values())


def time_all(
    models: Mapping[str, Model], settings: Sequence[Setting], cases: Sequence[Case], rounds: int
) -> list[list[float]]:
    """Return each setting's milliseconds in every round: all settings in turns, each round in another order."""
    times: list[list[float]] = [[] for _ in settings]
    rng = np.random.default_rng(0)
    for turn in range(1 + rounds):  # the first compiles what is missing and warms up
        for i in rng.permutation(len(settings)):
            setting = settings[i]
            ms = engine_ms(models[setting.candidate.name], setting, cases[turn % len(cases)])
            if turn:
                times[i].append(ms)
        print(f"\rtimed {turn} of {rounds} rounds", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def unbeaten(points: Iterable[T], cost: Callable[[T], float], quality: Callable[[T], float]) -> list[T]:
    """Return the points that no other beats in both cost and quality, cheapest first."""
    found: list[T] = []
    for point in sorted(points, key=lambda p: (cost(p), -quality(p))):
        if not found or quality(point) > quality(found[-1]):
            found.append(point)
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats in both time and PSNR, fastest first."""
    return unbeaten(points, lambda p: p.ms, lambda p: p.mean_db)


def row_of(point: Point, without: Mapping[tuple[str, str, int], Point]) -> dict[str, Any]:
    """Return a table row; ``without`` are the points without shortcuts, whose pictures are compared in pairs."""
    setting = point.setting
    same = without.get(setting.plain)
    loss = bootstrap(point.named_db - same.named_db).text(2) if same and setting.shortcuts else ""
    return {
        "bundle": setting.candidate.name,
        "sampler": setting.fields["sampler"],
        "steps": setting.fields["steps"],
        "shortcuts": setting.shortcuts,
        "engine ms": round(point.ms, 1),
        "PSNR to the named picture, dB": bootstrap(point.named_db).text(2),
        "minus without shortcuts": loss,
        "ms / without": round(point.ms / same.ms, 2) if same and setting.shortcuts else "",
        "retrieval %": point.retrieved.text(1),
        "ground as asked %": point.ground.text(1),
    }


def plot(points: Sequence[Point], file: Path) -> None:
    """Draw all points, the front, and the front that there would be without shortcuts, as PNG."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 6), layout="constrained")
    for i, name in enumerate(dict.fromkeys(point.setting.candidate.name for point in points)):
        for shortcut, face in ((False, f"C{i}"), (True, "none")):
            chosen = [p for p in points if p.setting.candidate.name == name and bool(p.setting.shortcuts) == shortcut]
            label = f"{name}, with shortcuts" if shortcut else name
            if chosen:
                xy = [p.ms for p in chosen], [p.mean_db for p in chosen]
                axes.scatter(*xy, s=22, facecolors=face, edgecolors=f"C{i}", label=label)
    best = front(points)
    unaided = front([p for p in points if not p.setting.shortcuts])
    axes.plot([p.ms for p in best], [p.mean_db for p in best], "k-", lw=1, label="front")
    axes.plot([p.ms for p in unaided], [p.mean_db for p in unaided], "k:", lw=1, label="front without shortcuts")
    for point in best:
        text = f"{point.setting.fields['sampler']} {point.setting.fields['steps']}"
        axes.annotate(text, (point.ms, point.mean_db), xytext=(4, -9), textcoords="offset points", fontsize=7)
    axes.set(xscale="log", xlabel="engine ms of one picture", ylabel="mean PSNR to the named picture, dB")
    for axis_ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis_ticks(lambda ms, _: f"{ms:g}")
    axes.tick_params(which="both", labelsize=8)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=8)
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def judge_all(settings: Sequence[Setting], ms: Sequence[float], cases: Sequence[Case], store: Path) -> list[Point]:
    """Return a point for each setting, of pictures that are painted unless they are kept."""
    judge = Judge(settings[0].candidate.bundle)
    points = []
    for setting, own_ms in zip(settings, ms, strict=True):
        candidate, steps = setting.candidate, setting.fields["steps"]
        images = paint(candidate.bundle, cases, steps, settings=setting.fields, noise=candidate.noise, store=store)
        found = share(judge.retrieved(images, cases)), share(ground_as_asked(images, cases))
        points.append(Point(setting, own_ms, named_psnr_db(images, cases), *found))
    judge.close()
    return points


def run(options: argparse.Namespace) -> None:
    """Paint, time, and write table, JSON and plot. Raises MezzotintError."""
    axes = dict(AXES)
    for text in options.axis:
        key, separator, values = text.partition("=")
        if not separator:
            raise InvalidRequest(f"axis {text!r}: must be FIELD=VALUE,VALUE")
        axes[key] = values
    cases = draw_cases(options.count)
    candidates = [read_candidate(text, options.store) for text in options.bundle]
    models = {c.name: open_bundle(c.bundle, LoadOptions(devices={}, cache=False)) for c in candidates}
    settings = [s for c in candidates for s in possible(models[c.name], combinations(c, axes), cases[0])]
    if not settings:
        raise InvalidRequest(f"axes {axes}: no bundle serves any combination; ask for others with --axis")
    if not options.rounds:
        judge_all(settings, [0.0] * len(settings), cases, options.store)
        return
    # paints need no torch, which the harness brings along with compile's timings
    from benchmarks.harness import RESULTS, CpuShare, publish

    with CpuShare() as cpu:
        times = time_all(models, settings, cases, options.rounds)
    for model in models.values():
        model.close()
    points = judge_all(settings, [statistics.median(own) for own in times], cases, options.store)
    without = {point.setting.plain: point for point in points if not point.setting.shortcuts}
    plot(points, RESULTS / f"{options.name}.png")
    question = (
        f"Which settings give the best pictures for the time? The front of {len(points)}, {len(cases)} prompt × seed "
        f"pairs each, emoji model; in brackets 95 % intervals; cpu/wall {cpu.value} while timing"
    )
    details = {
        "rounds": options.rounds,
        "cpu_over_wall": cpu.value,
        "digests": {name: model.digest for name, model in models.items()},
        "all": [row_of(point, without) for point in points],
        "ms": [[round(ms, 2) for ms in own] for own in times],
    }
    publish(options.name, question, [row_of(point, without) for point in front(points)], details)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", required=True, metavar="NAME=FOLDER[,FIELD=VALUE]…")
    parser.add_argument("--axis", action="append", default=[], help=f"FIELD=VALUE,VALUE of a request; unsaid {AXES}")
    parser.add_argument("--count", type=int, default=200, help="prompt × seed pairs of each setting")
    parser.add_argument("--rounds", type=int, default=7, help="timed pictures of each setting; 0 only paints")
    parser.add_argument("--name", default="pareto", help="of the files in benchmarks/results")
    parser.add_argument("--store", type=Path, default=STORE, help="where pictures are kept for the next run")
    try:
        run(parser.parse_args())
    except MezzotintError as error:
        sys.exit(f"benchmarks.pareto: {error}")


if __name__ == "__main__":
    main()
