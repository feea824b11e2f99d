"""Is it so on a real engine? Some of the simulated ways, with a compiled bundle under the same traffic.

    python -m benchmarks.load.real build/emoji-int8 --count 150

The seconds of a call are measured first; then each way serves the same pictures at the same moments, and the simulator
is asked for the same traffic with the seconds that the calls of that run took, since a machine drifts (where whole
requests are batched, those measured first). Throughput is that of a queue that never empties, beside the engines called
in a loop.
"""

import argparse
import queue
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import CpuShare, publish
from benchmarks.load.disciplines import NEVER, ByRequest, ByStep, Discipline
from benchmarks.load.engine import Curve
from benchmarks.load.traffic import STEPS, Floats, Traffic, poisson
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.image import Stage
from mezzotint.engines.model import Model, generate
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Event, Failed, Finished
from mezzotint.server.observer import Call, Observer
from mezzotint.server.policy import POLICIES, UNSTEADY

ROWS = 2  # of a picture: guidance
_WAYS = ("fcfs", "log-boost", "gamma-boost", "least-work")
_BATCHED = "whole requests batched"
_FEW = 5  # calls that have a mean
_SHORT, _LONG = 4, 24  # steps whose difference is denoising alone

Serve = Callable[[Traffic, Curve], tuple[Floats, Curve]]
"""Serves traffic, given the curve that was measured before; gives when each picture was there, and this run's curve."""


def request_of(steps: float, seed: int) -> Request:
    """Return the request of one picture."""
    return Request(prompt="a shark on a blue background", steps=int(steps), guidance=4.0, seed=seed)


def measure_curve(model: Model, rounds: int = 5) -> Curve:
    """Return how long calls take by the pictures that share them, and each picture's text and decoding."""

    def seconds(pictures: int, steps: int) -> float:
        begun = time.perf_counter()
        generate(model, [request_of(steps, seed) for seed in range(pictures)])
        return time.perf_counter() - begun

    calls, rest = [], []
    for pictures in range(1, model.max_rows[FULL] // ROWS + 1):
        pairs = [(seconds(pictures, _SHORT), seconds(pictures, _LONG)) for _ in range(rounds + 1)][1:]
        calls.append(statistics.median((long - short) / (_LONG - _SHORT) for short, long in pairs))
        rest.append(statistics.median((short - _SHORT * calls[-1]) / pictures for short, _ in pairs))
    return Curve(tuple(calls), finish_seconds=statistics.median(rest))


class Stopwatch(Observer):
    """The seconds of a run's calls: those of denoising by the pictures that share them, and all else."""

    def __init__(self) -> None:
        self._denoising: dict[int, list[float]] = {}
        self._rest = 0.0

    def called(self, call: Call) -> None:
        """Note a call."""
        if call.stage is Stage.DENOISE:
            self._denoising.setdefault(len(call.images), []).append(call.ended - call.began)
        else:
            self._rest += call.ended - call.began

    def curve(self, before: Curve, num_pictures: int) -> Curve:
        """Return this run's curve; calls of as many pictures as it had too few of are as much slower as the others."""
        own = {most: statistics.fmean(seconds) for most, seconds in self._denoising.items() if len(seconds) >= _FEW}
        drift = statistics.median([seconds / before.seconds[most - 1] for most, seconds in own.items()] or [1.0])
        seconds = tuple(own.get(i + 1, before.seconds[i] * drift) for i in range(before.most))
        return Curve(seconds, self._rest / num_pictures)


def by_core(bundle: Path, policy: str) -> Serve:
    """Return what serves traffic with the server's core under one policy."""

    def serve(traffic: Traffic, curve: Curve) -> tuple[Floats, Curve]:
        watch = Stopwatch()
        model = open_bundle(bundle, LoadOptions(devices={}))
        model.warm_up_rest()
        core = Core(
            model, CoreConfig(max_queue_size=100_000, max_started_images=100_000, policy=policy), observer=watch
        )
        left, ended = np.full(len(traffic), NEVER), threading.Semaphore(0)
        start = time.monotonic()

        def end(i: int, event: Event) -> None:
            if isinstance(event, Finished):
                left[i] = time.monotonic() - start
            if isinstance(event, Finished | Failed):
                ended.release()

        for i, arrival in enumerate(traffic.arrivals):
            time.sleep(max(0.0, start + arrival - time.monotonic()))
            core.submit(request_of(traffic.steps[i], i), request_id=str(i), on_event=lambda event, i=i: end(i, event))
        for _ in range(len(traffic)):
            ended.acquire()
        core.close()
        return left, watch.curve(curve, len(traffic))

    return serve


def by_request(bundle: Path) -> Serve:
    """Return what serves traffic in whole loops of one number of steps, as servers do that batch requests."""

    def serve(traffic: Traffic, curve: Curve) -> tuple[Floats, Curve]:
        model = open_bundle(bundle, LoadOptions(devices={}))
        model.warm_up_rest()
        left, came = np.full(len(traffic), NEVER), queue.SimpleQueue[int]()
        start = time.monotonic()

        def come() -> None:
            for i, arrival in enumerate(traffic.arrivals):
                time.sleep(max(0.0, start + arrival - time.monotonic()))
                came.put(i)

        threading.Thread(target=come, daemon=True).start()
        waiting: list[int] = []
        num_left = len(traffic)
        while num_left:
            while not waiting or not came.empty():
                waiting.append(came.get())
            same = [i for i in waiting if traffic.steps[i] == traffic.steps[waiting[0]]]
            batch = same[: model.max_rows[FULL] // ROWS]
            waiting = [i for i in waiting if i not in batch]
            generate(model, [request_of(traffic.steps[i], i) for i in batch])
            left[batch] = time.monotonic() - start
            num_left -= len(batch)
        model.close()
        return left, curve

    return serve


def ways(bundle: Path) -> dict[str, tuple[Serve, Discipline]]:
    """Return each way for real and simulated."""
    found: dict[str, tuple[Serve, Discipline]] = {
        name: (by_core(bundle, name), ByStep(POLICIES[name], name not in UNSTEADY)) for name in _WAYS
    }
    return found | {_BATCHED: (by_request(bundle), ByRequest())}


def figures(traffic: Traffic, left: Floats, alone: Floats) -> list[float]:
    """Return mean and p99 of latency, and p99 of slowdown."""
    latency = left - traffic.arrivals
    return [float(latency.mean()), float(np.percentile(latency, 99)), float(np.percentile(latency / alone, 99))]


def compare(bundle: Path, curve: Curve, loads: Sequence[float], count: int) -> list[dict[str, Any]]:
    """Return a row of each load and way."""
    rows = []
    mean_steps = sum(STEPS) / len(STEPS)
    for load in loads:
        traffic = poisson(load / (mean_steps * curve.step_seconds + curve.finish_seconds), count, 1)
        alone = traffic.steps * curve.seconds[0] + curve.finish_seconds
        for name, (serve, simulate) in ways(bundle).items():
            with CpuShare() as cpu:
                left, own = serve(traffic, curve)
            real, simulated = (figures(traffic, found, alone) for found in (left, simulate(traffic, own)))
            row: dict[str, Any] = {"load": f"{load:.0%}", "way": name}
            for key, mine, theirs in zip(("mean s", "p99 s", "p99 slowdown"), real, simulated, strict=True):
                row |= {key: round(mine, 2), f"{key}, simulated": round(theirs, 2)}
            rows.append(row | {"cpu/wall": cpu.value})
            print(row, flush=True)
    return rows


def throughput(bundle: Path, curve: Curve, count: int, rounds: int = 3) -> float:
    """Return the server's pictures a second as a share of the engines' in a loop, in turns; all wait from the start."""
    traffic = Traffic(np.zeros(count), np.full(count, 10.0), np.full(count, np.inf))
    model = open_bundle(bundle, LoadOptions(devices={}))
    model.warm_up_rest()
    shares = []
    for _ in range(rounds):
        begun = time.perf_counter()
        generate(model, [request_of(10, seed) for seed in range(count)])
        alone = time.perf_counter() - begun
        shares.append(alone / float(by_core(bundle, "log-boost")(traffic, curve)[0].max()))
    model.close()
    return statistics.median(shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--count", type=int, default=150, help="pictures of each run")
    parser.add_argument("--load", type=float, action="append", help="shares of what the engine makes; unsaid 0.5, 0.8")
    options = parser.parse_args()
    model = open_bundle(options.bundle, LoadOptions(devices={}))
    model.warm_up_rest()
    curve = measure_curve(model)
    model.close()
    share = throughput(options.bundle, curve, options.count)
    rows = compare(options.bundle, curve, options.load or [0.5, 0.8], options.count)
    details = {"seconds by pictures a call": curve.seconds, "text and decoding s": curve.finish_seconds}
    question = (
        f"Is it so on a real engine? {options.bundle.name}, {options.count} pictures; throughput {share:.1%} of the "
        "engines' own"
    )
    publish("load-real", question, rows, details | {"throughput": share})


if __name__ == "__main__":
    main()
