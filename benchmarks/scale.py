"""Does `mezzotint capacity` foresee what two replicas do? Two loads on a Ray cluster of this machine.

    python -m benchmarks.scale build/emoji

Step times are measured first, with one thread, as each replica has; then pictures come at random moments, and how long
they take stands beside what was foreseen from the step times alone. Here the cluster's own processes and the clients
share two cores with the replicas, which slows those by more than on machines with cores to spare: so the same is
foreseen once more with step times that are as much longer as a picture takes longer on the idle cluster than by its
step times.
"""

import argparse
import asyncio
import os
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cluster import CACHE, cluster
from benchmarks.harness import publish
from mezzotint import AsyncClient
from mezzotint.engines.bundle import LoadOptions, wanted_engines
from mezzotint.engines.tune import tune
from mezzotint.server.capacity import Host, Kind, host_of, predict

KINDS = (Kind(8, 0.7), Kind(25, 0.3))
REPLICAS = 2
_ROWS = 2
_ALONE = 8  # pictures of each kind on the idle cluster


async def latency(client: AsyncClient, steps: int, seed: int) -> float:
    """Return the seconds of one picture."""
    begun = time.perf_counter()
    await client.generate("a shark on a blue background", steps=steps, guidance=4.0, seed=seed)
    return time.perf_counter() - begun


async def alone(client: AsyncClient, kind: Kind) -> float:
    """Return the median seconds of a picture that nobody else is beside."""
    return statistics.median([await latency(client, kind.steps, seed) for seed in range(_ALONE)])


async def under_load(client: AsyncClient, rate: float, seconds: float) -> list[float]:
    """Return the seconds of pictures that come at random, so many a second for so long."""
    draw, begun = random.Random(1), time.perf_counter()
    waiting: list[asyncio.Task[float]] = []
    arrival = draw.expovariate(rate)
    while arrival < seconds:
        await asyncio.sleep(max(0.0, begun + arrival - time.perf_counter()))
        (kind,) = draw.choices(KINDS, [kind.share for kind in KINDS])
        waiting.append(asyncio.ensure_future(latency(client, kind.steps, len(waiting))))
        arrival += draw.expovariate(rate)
    return await asyncio.gather(*waiting)


def slower(host: Host, factor: float) -> Host:
    """Return a host that takes longer by a factor."""
    seconds = host.call_seconds
    return replace(host, call_seconds=lambda n: factor * seconds(n), rest_seconds=factor * host.rest_seconds)


def row(host: Host, here: Host, load: float, rate: float, found: Sequence[float]) -> dict[str, Any]:
    """Return a row: measured, foreseen from step times, and foreseen from those of the cluster."""
    by_curve, by_cluster = (predict(each, KINDS, rate, REPLICAS) for each in (host, here))
    return {
        "load": f"{load:.0%}",
        "pictures": len(found),
        "mean s": round(statistics.fmean(found), 3),
        "by step times": round(by_curve.mean, 3),
        "and the cluster's share": round(by_cluster.mean, 3),
        "p99 s": round(float(np.percentile(found, 99)), 3),
        "p99 by step times": round(by_curve.p99, 3),
        "p99 and the cluster's share": round(by_cluster.p99, 3),
    }


async def measure(
    target: str, host: Host, loads: Sequence[float], seconds: float
) -> tuple[float, list[dict[str, Any]]]:
    """Return how much longer a lone picture takes than by its step times, and a row for each load."""
    async with AsyncClient(target, timeout=120) as client:
        for kind in KINDS:
            await alone(client, kind)  # warm-up
        found = {kind: await alone(client, kind) for kind in KINDS}
        factor = statistics.fmean(found[kind] / host.picture_seconds(kind.steps) for kind in KINDS)
        here = slower(host, factor)
        steps = sum(kind.share * kind.steps for kind in KINDS)
        rows = []
        for load in loads:
            rate = load * REPLICAS * here.pictures_a_second(steps)
            rows.append(row(host, here, load, rate, await under_load(client, rate, seconds)))
            print(rows[-1], flush=True)
        return factor, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load")
    parser.add_argument("--load", type=float, action="append", help="shares of what the replicas make; unsaid 0.5, 0.8")
    options = parser.parse_args()
    load = LoadOptions(devices={}, num_threads=1)
    os.environ["XDG_CACHE_HOME"] = str(CACHE)  # the replicas', which then go by the same curves
    tune(options.bundle, load)
    host = host_of({key: wanted.entry for key, wanted in wanted_engines(options.bundle, load).items()}, _ROWS)
    with cluster(options.bundle, "--replicas", str(REPLICAS), "--num-cpus", "0.5") as made:
        factor, rows = asyncio.run(measure(made.target, host, options.load or [0.5, 0.8], options.seconds))
    details = {"seconds of a lone picture over those by step times": factor, "mix": [[k.steps, k.share] for k in KINDS]}
    question = (
        f"Does `mezzotint capacity` foresee what two replicas do? {options.bundle.name}, one thread each; on the idle "
        f"cluster a picture takes {factor:.2f} times its step times"
    )
    publish("scale", question, rows, details)


if __name__ == "__main__":
    main()
