"""Is it so on a real engine? The ways of scheduling on one compiled bundle's engines, under the same traffic.

    mezzotint compile models/emoji -o build/emoji-two-sizes --precision int8 --height 64:64:96 --width 64:64:96
    mezzotint tune build/emoji-two-sizes
    python -m benchmarks.load.real build/emoji-two-sizes --sides 64,96

The seconds of a call are measured first; then each way serves the same pictures at the same moments, in turns with the
others of its load, and the simulator is asked for the same traffic with the seconds that the calls of that run took and
those between them, since a machine drifts. What is finished is kept under --work; the same command takes it up again
after --seconds, or after it was stopped. Results are of the turns that all ways of a load have had.
"""

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load.cells import in_turns, run_all, whole_turns
from benchmarks.load.engine import Curve
from benchmarks.load.real_report import Measurement, report
from benchmarks.load.serving import ROWS, Sides
from benchmarks.load.stopwatch import Timed
from benchmarks.load.throughput import Share, throughput
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL

_LOADS = (0.5, 0.8, 0.95, 1.2, 3.0)
_SHORT, _LONG = 4, 24  # steps whose difference is denoising alone


def measure_curve(model: Model, side: int, rounds: int) -> Curve:
    """Return how long calls take by the pictures that share them, and each picture's text and decoding.

    The first, untimed round compiles the engines for the size.
    """

    def seconds(pictures: int, steps: int) -> float:
        sized = [
            Request(prompt="a shark", steps=steps, guidance=4.0, seed=seed, height=side, width=side)
            for seed in range(pictures)
        ]
        begun = time.perf_counter()
        generate(model, sized)
        return time.perf_counter() - begun

    calls, rest = [], []
    for pictures in range(1, model.max_rows[FULL] // ROWS + 1):
        pairs = [(seconds(pictures, _SHORT), seconds(pictures, _LONG)) for _ in range(rounds + 1)][1:]
        calls.append(statistics.median((long - short) / (_LONG - _SHORT) for short, long in pairs))
        rest.append(statistics.median((short - _SHORT * calls[-1]) / pictures for short, _ in pairs))
    return Curve(tuple(calls), max(0.0, statistics.median(rest)))


def known_curves(model: Model, sides: Sides, path: Path) -> list[Curve]:
    """Return the curve of each size, which the traffic follows from: measured now, or by an earlier run.

    Either way all row counts of all sizes are compiled then.
    """
    found = [measure_curve(model, side, rounds=1 if path.is_file() else 5) for side in sides]
    if not path.is_file():
        path.write_text(json.dumps([[curve.seconds, curve.finish_seconds] for curve in found]), encoding="utf-8")
    return [Curve(tuple(seconds), finish) for seconds, finish in json.loads(path.read_text(encoding="utf-8"))]


def known_share(model: Timed, sides: Sides, count: int, rounds: int, path: Path) -> Share:
    """Return the throughput's share: measured now, or by an earlier run."""
    if not path.is_file():
        path.write_text(json.dumps(throughput(model, sides, count, rounds).rounds), encoding="utf-8")
    return Share(tuple(json.loads(path.read_text(encoding="utf-8"))))


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _whole_numbers(text: str) -> Sides:
    return tuple(int(part) for part in text.split(","))


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--sides", type=_whole_numbers, default=(64, 96), help="pixels of the sizes that are mixed")
    parser.add_argument("--count", type=int, default=40, help="pictures of one turn of one way")
    parser.add_argument("--turns", type=int, default=2, help="turns of each way within a load; rows pool them")
    parser.add_argument("--loads", type=_numbers, default=_LOADS, help="shares of what the engines make at most")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="ways whose names contain it")
    parser.add_argument("--rounds", type=int, default=7, help="of the throughput")
    parser.add_argument("--saturating", type=int, default=60, help="pictures of a throughput's half round")
    parser.add_argument("--work", type=Path, default=Path("build/load-real"))
    parser.add_argument("--seconds", type=float, default=840.0, help="after which no turn begins")
    parser.add_argument("--dry", action="store_true", help="write no results, to see that it runs")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    options = command_line().parse_args(arguments)
    sides: Sides = options.sides
    begun = time.monotonic()
    opened = open_bundle(options.bundle, LoadOptions(devices={}))
    model = Timed(opened, sides)
    asked = f"{model.digest} {sides} {options.count}"
    work: Path = options.work / hashlib.sha256(asked.encode()).hexdigest()[:12]
    work.mkdir(parents=True, exist_ok=True)
    curves = known_curves(model, sides, work / "curves.json")
    share = known_share(model, sides, options.saturating, options.rounds, work / "throughput.json")
    cells = in_turns(options.loads, options.turns, options.only)
    path = work / "runs.jsonl"
    runs = run_all(cells, model, curves, count=options.count, sides=sides, path=path, until=begun + options.seconds)
    opened.close()
    if len(runs) < len(cells):
        print(f"{len(cells) - len(runs)} turns of {len(cells)} are left; the same command takes them up", flush=True)
    if not options.dry:
        report(Measurement(options.bundle.name, sides, options.count, share, curves), whole_turns(cells, runs))


if __name__ == "__main__":
    main()
