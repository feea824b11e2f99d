"""Who goes first: pure functions of the images that are here and of the clock. Imports numpy and the demand alone.

``policy(arrival, size, remaining, deadline, now)`` gives a value for each image, and the smallest goes first; what goes
first among images of one value says ``order.py``. ``arrival``, ``deadline`` (infinity is none) and ``now`` are
seconds of one clock, ``size`` is the seconds of engine time that an image takes in all, ``remaining`` what is left of
them. All are floats or arrays side by side.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from mezzotint.server.demand import Demand

Floats: TypeAlias = Any
Policy: TypeAlias = Callable[[Floats, Floats, Floats, Floats, float], Floats]

_TINY_SECONDS = 1e-6
_LAST = 1e12
_USUAL_PATIENCE = 20.0
_WORK_WEIGHT = 2.0  # more loses where all could be in time, less where not all can (simulated)
_AGEING = 0.1  # seconds of work that a second of waiting makes up for: mean and tail both low at 80 % load (measured)


def fcfs(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
    """First come, first served."""
    return arrival


def processor_sharing(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
    """Everybody's share of the engine since arrival alike: who had least of it for its time here goes first."""
    return (size - remaining) / np.maximum(now - arrival, _TINY_SECONDS)


def least_work(ageing: float) -> Policy:
    """Least remaining work, less ``ageing`` seconds of work for each second of waiting, so that nobody starves."""

    def policy(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
        return arrival + remaining / ageing

    return policy


def gamma_boost(gamma: float) -> Policy:
    """γ-Boost: served as if come (1/γ)·ln(1 / (1 − exp(−γ·size))) seconds earlier, 1/γ in seconds.

    Yu & Scully 2024, "Strongly Tail-Optimal Scheduling in the Light-Tailed M/G/1", arXiv 2404.08826.
    """

    def policy(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
        return arrival + np.log(-np.expm1(-gamma * np.maximum(size, _TINY_SECONDS))) / gamma

    return policy


def log_boost(seconds: float) -> Policy:
    """Half the remaining work counts as having come ``seconds``·ln 2 earlier, whatever the unit of work.

    What γ-Boost is for small sizes, with the remaining work in the size's place, and going on for large ones, where
    γ-Boost ends: that spares the small ones at once and the large ones' last steps.
    """

    def policy(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
        return arrival + seconds * np.log(np.maximum(remaining, _TINY_SECONDS))

    return policy


def earliest_deadline(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
    """Earliest deadline first; those without one come last, in the order of their arrival."""
    return np.where(np.isfinite(deadline), deadline, _LAST + arrival)


def in_time(images_a_call: float) -> Policy:
    """Earliest deadline first, two seconds later for each second of remaining work; those who cannot make it come last.

    A deadline counts as missed by whoever's remaining steps take too long in full calls, ``images_a_call`` times their
    own share: then the time is others'. Without a deadline an image is as urgent as if it were to take twenty times its
    own, and always in time.
    """

    def policy(arrival: Floats, size: Floats, remaining: Floats, deadline: Floats, now: float) -> Floats:
        due = np.where(np.isfinite(deadline), deadline, arrival + _USUAL_PATIENCE * images_a_call * size)
        hopeless = now + images_a_call * remaining > deadline
        return due + _WORK_WEIGHT * remaining + np.where(hopeless, _LAST, 0.0)

    return policy


POLICIES: Mapping[str, Callable[[Demand], Policy]] = MappingProxyType(
    {
        "log-boost": lambda demand: log_boost(demand.boost_seconds),
        "gamma-boost": lambda demand: gamma_boost(demand.gamma),
        "least-work": lambda demand: least_work(_AGEING),
        "processor-sharing": lambda demand: processor_sharing,
        "fcfs": lambda demand: fcfs,
        "earliest-deadline": lambda demand: earliest_deadline,
        "in-time": lambda demand: in_time(demand.images_a_call),
    }
)
"""The orders that a server may be told to keep, by name; what they need of the demand is taken when an image comes."""

UNSTEADY = frozenset({"processor-sharing", "in-time"})
"""Those whose order of images that wait changes with time alone."""

DEFAULT_POLICY = "log-boost"
