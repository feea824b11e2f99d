"""What a server whose queue never empties makes, beside the engines' own calls in a loop, in turns."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.load.serving import Sides, by_core, request_of
from benchmarks.load.stopwatch import Timed
from benchmarks.load.traffic import Traffic
from mezzotint.engines.generate import generate

_STEPS = 10.0


@dataclass(frozen=True)
class Share:
    """The server's pictures a second over the engines' own: a ratio for each round.

    Attributes:
        rounds: the ratio of each.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle round's."""
        return statistics.median(self.rounds)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the median, by drawing the rounds again."""
        drawn = np.random.default_rng(0).choice(np.array(self.rounds), (10_000, len(self.rounds)))
        low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
        return float(low), float(high)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.median:.1%} ({low:.1%} to {high:.1%}, {len(self.rounds)} rounds)"


def throughput(model: Timed, sides: Sides, count: int, rounds: int) -> Share:
    """Return the server's share, as the ratio of each round: engines, server, server, engines, to meet any drift alike.

    All pictures, ``count`` of 10 steps in the first size, wait from the start.
    """
    here = np.zeros(count)
    traffic = Traffic(here, np.full(count, _STEPS), np.full(count, np.inf), here.astype(np.intp))
    requests = [request_of(traffic, i, sides) for i in range(count)]

    def engines() -> float:
        begun = time.perf_counter()
        generate(model, requests)
        return time.perf_counter() - begun

    def server() -> float:
        return float(by_core("log-boost")(model, traffic, sides).left.max())

    def a_round() -> float:
        alone, served = engines(), server() + server()
        return (alone + engines()) / served

    return Share(tuple(_reported(a_round() for _ in range(rounds))))


def _reported(shares: Iterable[float]) -> list[float]:
    found = []
    for share in shares:
        found.append(share)
        print(f"throughput: {share:.1%} of the engines' own", flush=True)
    return found
