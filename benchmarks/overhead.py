"""How much time does the server itself take? Per denoising step, per request, and until it is ready.

    python -m benchmarks.overhead build/emoji

Of a step it is what lies between two calls of the UNet: scheduling, batching, guidance, sampling, events. Of a request,
made one after the other with an empty queue, what lies outside of its stages as its timings state them: gRPC, queue,
PNG.
"""

import argparse
import itertools
import statistics
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness import percentiles, publish
from benchmarks.start import served
from mezzotint import Client
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.errors import BundleError
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Failed, Finished


class TimedEngine:
    """An engine that adds up how long it ran."""

    def __init__(self, engine: Any, calls: list[tuple[float, float]]) -> None:
        self._engine = engine
        self._calls = calls
        self.spec = engine.spec
        self.device = engine.device
        self.row_counts = engine.row_counts

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the engine and note from when to when."""
        begun = time.perf_counter()
        outputs: Mapping[str, Any] = self._engine.run(inputs)
        self._calls.append((begun, time.perf_counter()))
        return outputs

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def timed_model(bundle: Path, calls: list[tuple[float, float]]) -> Model:
    """Open a bundle whose engines note when they run."""
    model = open_bundle(bundle, LoadOptions(devices={}, cache=False))  # whatever rows this host was tuned to
    model.warm_up_rest()
    engines: dict[EngineKey, Any] = {
        component: TimedEngine(engine, calls) for component, engine in model.engines.items()
    }
    return Model(model.manifest, model.digest, model.prompts, engines, model.max_rows)


def run(core: Core, requests: list[Request]) -> None:
    """Submit requests at once and wait for all."""
    ended = threading.Semaphore(0)

    def on_event(event: object) -> None:
        if isinstance(event, Finished | Failed):
            ended.release()

    for i, request in enumerate(requests):
        core.submit(request, request_id=str(i), on_event=on_event)
    for _ in requests:
        ended.acquire()


def per_step(bundle: Path, num_images: int) -> list[float]:
    """Return milliseconds between the end of one UNet call and the start of the next, ``num_images`` guided images."""
    calls: list[tuple[float, float]] = []
    model = timed_model(bundle, calls)
    if model.max_rows[FULL] < 2 * num_images:
        raise BundleError(
            f"{bundle}: its calls take {model.max_rows[FULL]} rows, expected {2 * num_images}; compile again"
        )
    core = Core(model, CoreConfig())
    samplers = ("ddim", "euler", "euler_a", "dpmpp_2m")
    requests = [
        Request(prompt="a cat", steps=50 + i, guidance=3 + i, seed=i, sampler=samplers[i % len(samplers)])
        for i in range(num_images)
    ]
    run(core, requests)
    calls.clear()
    run(core, requests)
    core.close()
    gaps = [(b[0] - a[1]) * 1e3 for a, b in itertools.pairwise(calls)]
    return gaps[num_images:45]  # all images are denoised there: none is encoded or decoded


def per_request(target: str, num_requests: int) -> tuple[list[float], list[float]]:
    """Return (milliseconds outside of encode, denoise and decode, total milliseconds) of requests over gRPC."""
    own, total = [], []
    with Client(target) as client:
        for i in range(num_requests + 5):
            begun = time.perf_counter()
            result = client.generate("a cat", steps=4, guidance=4.0, seed=i, sampler="euler")
            spent = (time.perf_counter() - begun) * 1e3
            timings = result.timings[0]
            stages = timings.encode_ms + timings.denoise_ms + timings.decode_ms
            if i >= 5:
                own.append(spent - stages)
                total.append(spent)
    return own, total


def starts(bundle: Path, count: int) -> list[float]:
    """Return the seconds from a server's process start until it says that it is ready, of so many starts."""
    found = []
    for _ in range(count):
        with served(bundle) as server:
            found.append(server.seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    options = parser.parse_args()
    ready = starts(options.bundle, 7)
    with served(options.bundle) as server:
        own, total = per_request(server.address, 60)
    steps = per_step(options.bundle, 4)
    measured = {
        "a step, 8 rows (ms)": (steps, 1.0),
        "a request over gRPC outside of its stages, PNG included (ms)": (own, 5.0),
        "ready from process start (s)": (ready[1:], 1.5),
    }
    rows = [
        {"server's own time": name, **percentiles(values), "aim": f"≤ {aim:g}"}
        for name, (values, aim) in measured.items()
    ]
    details = {"request_total_ms": percentiles(total), "first_start_s": round(ready[0], 3)}
    publish("overhead", f"How much time does the server itself take? {options.bundle.name}", rows, details)
    print("whole request, ms:", round(statistics.median(total), 2))


if __name__ == "__main__":
    main()
