"""Ways of scheduling for real, on one model's engines: the server's core, and other servers' ways."""

import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from benchmarks.load.disciplines import NEVER, first_alike
from benchmarks.load.stopwatch import Timed
from benchmarks.load.traffic import Floats, Traffic
from mezzotint.engines import guidance
from mezzotint.engines.batch import Batch
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.events import Event, Failed, Finished

ROWS = 2  # of a picture: guidance
MAX_CLONES = 64  # pipelines at a time, as many as the server starts pictures; who comes then waits for one
_MANY = 100_000


@dataclass(frozen=True)
class Served:
    """When each picture was there, NEVER for one that was not made; and when those left that were not made."""

    left: Floats
    dropped: Floats


Serve: TypeAlias = Callable[[Timed, Traffic, "Sides"], Served]
"""Serves traffic on a model, whose picture sizes are given in pixels."""

Sides: TypeAlias = tuple[int, ...]


def request_of(traffic: Traffic, i: int, sides: Sides) -> Request:
    """Return the request of one picture of the traffic."""
    side = sides[traffic.sizes[i]]
    steps = int(traffic.steps[i])
    return Request(prompt="a shark on a blue background", steps=steps, guidance=4.0, seed=i, height=side, width=side)


def by_core(policy: str, *, admit_late: bool = True) -> Serve:
    """Return what serves with the server's core under a policy; ``admit_late`` as in ``CoreConfig``."""

    def serve(model: Timed, traffic: Traffic, sides: Sides) -> Served:
        config = CoreConfig(max_queue_size=_MANY, max_started_images=_MANY, policy=policy, admit_late=admit_late)
        core = Core(model, config)
        left, dropped, ended = np.full(len(traffic), NEVER), list[float](), threading.Semaphore(0)
        start = model.restart()

        def end(i: int, event: Event) -> None:
            now = time.monotonic() - start
            if isinstance(event, Finished):
                left[i] = now
            elif isinstance(event, Failed):
                dropped.append(now)
            else:
                return
            ended.release()

        for i in _as_they_come(traffic, start):
            deadline = float(traffic.deadlines[i])
            core.submit(
                request_of(traffic, i, sides),
                request_id=str(i),
                on_event=partial(end, i),
                deadline=None if math.isinf(deadline) else start + deadline,
            )
        for _ in range(len(traffic)):
            ended.acquire()
        core.close()
        return Served(left, np.array(dropped))

    return serve


def by_request(model: Timed, traffic: Traffic, sides: Sides) -> Served:
    """Serve in whole loops of one size and number of steps; who is late when its turn comes is not made."""
    left, dropped, came = np.full(len(traffic), NEVER), list[float](), queue.SimpleQueue[int]()
    start = model.restart()

    def come() -> None:
        for i in _as_they_come(traffic, start):
            came.put(i)

    threading.Thread(target=come, daemon=True).start()
    waiting: list[int] = []
    num_coming = len(traffic)
    while waiting or num_coming:
        while num_coming and (not waiting or not came.empty()):
            waiting.append(came.get())
            num_coming -= 1
        now = time.monotonic() - start
        late = [i for i in waiting if traffic.deadlines[i] <= now]
        dropped += [now] * len(late)
        waiting = [i for i in waiting if i not in late]
        if not waiting:
            continue
        batch = first_alike(traffic, waiting, model.max_rows[FULL] // ROWS)
        waiting = [i for i in waiting if i not in batch]
        generate(model, [request_of(traffic, i, sides) for i in batch])
        left[batch] = time.monotonic() - start
    return Served(left, np.array(dropped))


def interleaved(model: Timed, traffic: Traffic, sides: Sides) -> Served:
    """Serve with a loop of its own for each request, in its own thread; loops take turns on the engines.

    A turn is one engine call, first come, first served; what is between calls runs beside the others' calls.
    """
    left = np.full(len(traffic), NEVER)
    start = model.restart()
    with ThreadPoolExecutor(1) as engines, ThreadPoolExecutor(MAX_CLONES) as clones:

        def loop(i: int) -> None:
            (image,) = model.start(request_of(traffic, i, sides))
            while image.stage is not Stage.DONE:
                batch = Batch((image,))
                if image.stage is Stage.DENOISE:
                    output = engines.submit(model.denoise, batch).result()
                    batch.advance(guidance.combine(output, batch.weights))
                else:
                    engines.submit(run_call, model, batch).result()
            left[i] = time.monotonic() - start

        for done in [clones.submit(loop, i) for i in _as_they_come(traffic, start)]:
            done.result()
    return Served(left, np.array([]))


def _as_they_come(traffic: Traffic, start: float) -> Iterator[int]:
    for i, arrival in enumerate(traffic.arrivals):
        time.sleep(max(0.0, start + arrival - time.monotonic()))
        yield i
