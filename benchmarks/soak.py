"""Does a server that is used for long, and badly, hold what it held?

    python -m benchmarks.soak build/emoji --minutes 30

Clients ask for pictures of all kinds, take requests back, give them too little time, send nonsense, break their
connections and are killed, all against one server process. Its memory, files and threads are read all the while; what
counts is their slope after the first fifth, with a 95 % interval over ten blocks of samples: flat is what surely grows
by less than a hundredth of itself an hour.
"""

import argparse
import asyncio
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import publish
from benchmarks.processes import memory_mib
from benchmarks.start import served
from mezzotint import AsyncClient, MezzotintClientError

PROMPT = "a shark on a blue background"
_WORKERS = 8  # that ask all the time, so that calls are shared and the queue is never long
_SAMPLES = 200  # of a run, at most one a second
_WARM_UP = 0.2  # the share of the samples in which caches fill
_BLOCKS = 10  # of samples, whose means are nearly independent
_FLAT = 0.01  # growth an hour, as a share of what is held; an interval alone would call a page a leak
_T_975 = 2.306  # for ten blocks and two parameters
_LISTEN = (
    "import sys; from mezzotint import Client\nfor event in Client(sys.argv[1]).stream('a', steps=900): print(event)"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server's process holds at a moment, in minutes since the start."""

    minutes: float
    resident_mib: int
    files: int
    threads: int


@dataclass(frozen=True, slots=True)
class Slope:
    """Growth an hour, and half of its 95 % interval."""

    per_hour: float
    half: float

    def verdict(self, held: float) -> str:
        """Return "flat", "grows" or "unclear", of something that held so much after warm-up."""
        if self.per_hour + self.half <= _FLAT * held:
            return "flat"
        return "grows" if self.per_hour - self.half > 0 else "unclear"

    def __str__(self) -> str:
        return f"{self.per_hour:+.2f} ± {self.half:.2f}"


def slope(minutes: Sequence[float], values: Sequence[float]) -> Slope:
    """Return the least-squares slope of block means. Raises ValueError where there are fewer samples than blocks."""
    first = int(len(values) * _WARM_UP)
    if len(values) - first < _BLOCKS:
        raise ValueError(
            f"{len(values)} samples: at least {round(_BLOCKS / (1 - _WARM_UP)) + 1} are needed; run longer"
        )
    hours, means = (
        np.array([block.mean() for block in np.array_split(np.asarray(each[first:], float), _BLOCKS)])
        for each in ([minute / 60 for minute in minutes], [value - values[first] for value in values])
    )
    away = hours - hours.mean()
    rate = float(away @ means / (away @ away))
    rest = means - means.mean() - rate * away
    return Slope(rate, _T_975 * float(np.sqrt(rest @ rest / (_BLOCKS - 2) / (away @ away))))


def sample(pid: int, begun: float) -> Sample:
    """Return what a process holds now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    threads = next(int(line.split()[1]) for line in status if line.startswith("Threads:"))
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample((time.monotonic() - begun) / 60, memory_mib(pid)["resident"], files, threads)


class Traffic:
    """Clients that ask one server, in every way there is."""

    def __init__(self, target: str, seed: int) -> None:
        self.counts: Counter[str] = Counter()
        self._target = target
        self._draw = random.Random(seed)
        self._kinds: dict[str, tuple[int, Callable[[AsyncClient], Awaitable[str | None]]]] = {
            "picture": (50, self._picture),
            "previews": (10, self._previews),
            "taken back": (15, self._take_back),
            "too late": (10, self._too_late),
            "refused": (5, self._refused),
            "broken": (8, self._broken),
            "killed": (2, self._killed),
        }

    async def ask_until(self, end: float) -> None:
        """Ask for one thing after the other until ``end``, of the monotonic clock."""
        kinds, weights = list(self._kinds), [weight for weight, _ in self._kinds.values()]
        async with AsyncClient(self._target) as client:
            while time.monotonic() < end:
                (kind,) = self._draw.choices(kinds, weights)
                try:
                    outcome = " ".join(filter(None, ("as meant", await self._kinds[kind][1](client))))
                except MezzotintClientError as error:
                    outcome = error.code.name
                self.counts[f"{kind}: {outcome}"] += 1

    def _options(self) -> dict[str, Any]:
        draw = self._draw
        return {
            "steps": draw.choice((2, 4, 10, 25)),
            "guidance": draw.choice((1.0, 4.0)),
            "num_images": draw.choice((1, 1, 1, 2, 4)),
            "sampler": draw.choice(("ddim", "euler", "euler_a", "heun", "dpmpp_2m")),
            "image_format": draw.choice(("png", "jpeg", "webp")),
        }

    async def _picture(self, client: AsyncClient) -> None:
        await client.generate(PROMPT, **self._options())

    async def _previews(self, client: AsyncClient) -> None:
        await client.generate(PROMPT, preview_every=1, **self._options())

    async def _take_back(self, client: AsyncClient) -> None:
        stream = client.stream(PROMPT, steps=900)
        limit, count = self._draw.randrange(8), itertools.count()
        try:
            async for _ in stream:
                if next(count) >= limit:
                    stream.cancel()
        except MezzotintClientError as error:
            if error.code.name != "CANCELLED":
                raise

    async def _too_late(self, client: AsyncClient) -> str:
        """Ask for less time than it takes: refused where that can be foreseen, late where not, or just in time."""
        steps, seconds = self._draw.choice((25, 50, 900)), self._draw.uniform(0.05, 1.0)
        codes = ("DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "OK")
        return await _expect(codes, client.generate(PROMPT, steps=steps, timeout=seconds))

    async def _refused(self, client: AsyncClient) -> str:
        return await _expect(("INVALID_ARGUMENT",), client.generate(PROMPT, steps=self._draw.choice((-1, 0, 10**6))))

    async def _broken(self, _client: AsyncClient) -> None:
        async with AsyncClient(self._target) as other:
            async for _ in other.stream(PROMPT, steps=900):
                return  # with the connection

    async def _killed(self, _client: AsyncClient) -> None:
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _LISTEN, self._target, stdout=pipe)
        assert process.stdout is not None
        await process.stdout.readline()
        process.kill()
        await process.communicate()


async def _expect(codes: Sequence[str], call: Awaitable[Any]) -> str:
    """Await a call that should end with one of some statuses, and return it; any other is raised, or told as odd."""
    try:
        await call
    except MezzotintClientError as error:
        if error.code.name not in codes:
            raise
        return error.code.name
    return "OK" if "OK" in codes else "but for OK"


async def soak(pid: int, target: str, minutes: float, seed: int = 0) -> tuple[list[Sample], Counter[str]]:
    """Return samples of a server's process under traffic, and how the requests of each kind ended."""
    begun = time.monotonic()
    end = begun + 60 * minutes
    traffic, samples = Traffic(target, seed), []
    asking = [asyncio.ensure_future(traffic.ask_until(end)) for _ in range(_WORKERS)]
    while time.monotonic() < end:
        samples.append(sample(pid, begun))
        await asyncio.sleep(max(1.0, 60 * minutes / _SAMPLES))
    await asyncio.gather(*asking)
    return samples, traffic.counts


def rows_of(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Return a row of each thing that the process holds."""
    minutes = [each.minutes for each in samples]
    rows = []
    for name, field in (("resident MiB", "resident_mib"), ("open files", "files"), ("threads", "threads")):
        values = [float(getattr(each, field)) for each in samples]
        found = slope(minutes, values)
        held = values[int(len(values) * _WARM_UP)]
        rows.append(
            {
                "what": name,
                "after warm-up": round(held),
                "at the end": round(values[-1]),
                "most": round(max(values)),
                "growth an hour, 95 %": str(found),
                "verdict": found.verdict(held),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long; below five a slope says little")
    parser.add_argument("--seed", type=int, default=0, help="of the traffic")
    parser.add_argument("--name", default="soak", help="what the results' files are called")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache, served(given.bundle, Path(cache), []) as server:
        samples, counts = asyncio.run(soak(server.pid, server.address, given.minutes, given.seed))
    details = {
        "bundle": given.bundle.name,
        "minutes": given.minutes,
        "requests": dict(sorted(counts.items())),
        "samples": [[round(s.minutes, 3), s.resident_mib, s.files, s.threads] for s in samples],
    }
    question = f"Does a server hold what it held, after {given.minutes:g} minutes and {counts.total()} requests?"
    publish(given.name, question, rows_of(samples), details)


if __name__ == "__main__":
    main()
