"""Ways of scheduling, simulated: when does each picture of some traffic leave?

Steps are whole: who comes during a call waits for its end. Text encoding and decoding count when a picture is done.
Each takes the engine's curve of every size of the traffic's pictures; only those of one size share calls.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.load.engine import Curve
from benchmarks.load.traffic import Floats, Indices, Traffic
from mezzotint.server.demand import Demand
from mezzotint.server.policy import Policy

NEVER = np.inf
_HALF_A_STEP = 0.5


class Discipline(Protocol):
    """A way of scheduling."""

    def __call__(self, traffic: Traffic, *curves: Curve) -> Floats:
        """Return the second at which each picture has left; NEVER for one that was not made."""
        ...


@dataclass(frozen=True)
class ByStep:
    """Ours: each call takes the policy's first pictures, wherever each of them is.

    Attributes:
        policy: makes the order from the demand, as for ``server/scheduler.py``; asked whenever a picture comes.
        is_steady: whether the order of those who wait changes only when somebody comes or leaves, and those who run
            only move up: then a choice holds until that, and is made once for many steps.
    """

    policy: Callable[[Demand], Policy]
    is_steady: bool = True

    def __call__(self, traffic: Traffic, *curves: Curve) -> Floats:
        """Return the second at which each picture has left; one whose deadline passes leaves unmade."""
        left = np.full(len(traffic), NEVER)
        here = _Here(traffic, curves)
        most = curves[0].most
        demand = Demand(most)
        order = self.policy(demand)
        now, coming = 0.0, 0
        while coming < len(traffic) or here.count:
            if not here.count:
                now = max(now, float(traffic.arrivals[coming]))
            while coming < len(traffic) and traffic.arrivals[coming] <= now:
                demand.come(float(traffic.arrivals[coming]), here.come(coming))
                order = self.policy(demand)
                coming += 1
            here.leave(here.deadlines <= now)
            if not here.count:
                continue
            places = here.first(order, most, now)
            seconds = here.curve_of(places[0]).seconds[len(places) - 1]
            until = float(traffic.arrivals[coming]) if coming < len(traffic) else NEVER
            steps = here.steps_until(places, min(until, float(here.deadlines.min())) - now, seconds)
            steps = steps if self.is_steady else 1.0
            now += steps * seconds
            here.run(places, steps)
            for who in here.leave(here.steps < _HALF_A_STEP):
                now += curves[traffic.sizes[who]].finish_seconds
                left[who] = now
        return left


class _Here:
    """The pictures that are here, in columns side by side, in the order in which they came."""

    def __init__(self, traffic: Traffic, curves: Sequence[Curve]) -> None:
        self._traffic = traffic
        self._curves = curves
        self._step_seconds = np.array([curve.step_seconds for curve in curves])[traffic.sizes]
        self._table = np.empty((5, 64))  # arrival, work, deadline, steps left, index in the traffic
        self.count = 0

    @property
    def deadlines(self) -> Floats:
        """The deadlines of all."""
        return self._table[2, : self.count]

    @property
    def steps(self) -> Floats:
        """The steps that all have left."""
        return self._table[3, : self.count]

    def come(self, index: int) -> float:
        """Take a picture in and return its seconds of work."""
        if self.count == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        traffic = self._traffic
        work = float(traffic.steps[index] * self._step_seconds[index])
        self._table[:, self.count] = (
            *(traffic.arrivals[index], work, traffic.deadlines[index]),
            *(traffic.steps[index], index),
        )
        self.count += 1
        return work

    def curve_of(self, place: int) -> Curve:
        """Return the curve of a picture's size."""
        return self._curves[int(self._traffic.sizes[int(self._table[4, place])])]

    def first(self, order: Policy, most: int, now: float) -> Indices:
        """Return the places of the picture that goes first and of those behind it of its size, at most so many."""
        if self.count <= most and len(self._curves) == 1:
            return np.arange(self.count)
        arrival, work, deadline, steps, index = self._table[:, : self.count]
        indices = index.astype(np.intp)
        values = order(arrival, work, steps * self._step_seconds[indices], deadline, now)
        ranked: Indices = np.argsort(values, kind="stable")
        sizes = self._traffic.sizes[indices[ranked]]
        alike: Indices = ranked[sizes == sizes[0]]
        return alike[:most]

    def steps_until(self, places: Indices, seconds: float, call_seconds: float) -> float:
        """Return the calls until one of these is done or ``seconds`` have passed: the last begins before that."""
        most = np.ceil(seconds / call_seconds) if np.isfinite(seconds) else NEVER
        return float(max(1.0, min(self.steps[places].min(), most)))

    def run(self, places: Indices, steps: float) -> None:
        """Take pictures some steps on."""
        self._table[3, places] -= steps

    def leave(self, gone: npt.NDArray[np.bool_]) -> Indices:
        """Let pictures leave, by a mask over all; returns their indices in the traffic."""
        if not gone.any():
            return np.empty(0, dtype=np.intp)
        indices = self._table[4, : self.count][gone].astype(np.intp)
        kept = self._table[:, : self.count][:, ~gone]
        self.count = kept.shape[1]
        self._table[:, : self.count] = kept
        return indices


def first_alike(traffic: Traffic, waiting: Sequence[int], most: int) -> list[int]:
    """Return the first who waits and those behind it of as many steps and its size, at most so many."""
    steps, size = traffic.steps[waiting[0]], traffic.sizes[waiting[0]]
    return [i for i in waiting if traffic.steps[i] == steps and traffic.sizes[i] == size][:most]


@dataclass(frozen=True)
class ByRequest:
    """Dynamic batching of whole requests, as in Triton and SGLang: those of one size and number of steps share a loop.

    The picture that has waited longest takes along all that wait for as many steps of its size.
    """

    def __call__(self, traffic: Traffic, *curves: Curve) -> Floats:
        """Return the second at which each picture has left; who is late when its turn comes is not made."""
        left = np.full(len(traffic), NEVER)
        now, coming = 0.0, 0
        waiting: list[int] = []
        while coming < len(traffic) or waiting:
            now = now if waiting else max(now, float(traffic.arrivals[coming]))
            until = int(np.searchsorted(traffic.arrivals, now, side="right"))
            waiting += range(coming, until)
            coming = until
            waiting = [i for i in waiting if traffic.deadlines[i] > now]
            if not waiting:
                continue
            batch = first_alike(traffic, waiting, curves[0].most)
            waiting = [i for i in waiting if i not in batch]
            curve = curves[traffic.sizes[batch[0]]]
            now += float(traffic.steps[batch[0]]) * curve.seconds[len(batch) - 1] + len(batch) * curve.finish_seconds
            left[batch] = now
        return left


@dataclass(frozen=True)
class Interleaved:
    """Whole loops side by side, as OpenVINO Model Server clones a pipeline for each request: nobody shares a call.

    Everybody has as many turns on the engine as everybody else, in shares of a turn: with one size, processor sharing.
    Nobody is dropped, since a loop does not look at deadlines.
    """

    def __call__(self, traffic: Traffic, *curves: Curve) -> Floats:
        """Return the second at which each picture has left."""
        left = np.full(len(traffic), NEVER)
        now = served = 0.0  # seconds, and turns that each has had that was here all the time
        a_round = 0.0  # seconds in which everybody here has a turn
        here: list[tuple[float, int]] = []
        for i, arrival in enumerate([*traffic.arrivals.tolist(), NEVER]):
            while here and now + (here[0][0] - served) * a_round <= arrival:
                until, who = heapq.heappop(here)
                now += (until - served) * a_round
                served = until
                left[who] = now
                a_round = a_round - curves[traffic.sizes[who]].seconds[0] if here else 0.0
            if i < len(traffic):
                served += (arrival - now) / a_round if here else 0.0
                now = arrival
                curve = curves[traffic.sizes[i]]
                turns = float(traffic.steps[i]) + curve.finish_seconds / curve.seconds[0]
                a_round += curve.seconds[0]
                heapq.heappush(here, (served + turns, i))
        return left
