"""Who goes first: one pure function of an image and the clock. Imports nothing."""

from collections.abc import Callable
from typing import TypeAlias

Policy: TypeAlias = Callable[[float, int, int, float | None, float], float]
"""``policy(arrival, size, remaining, deadline, now)``: the image of the smallest value goes first.

``arrival``, ``deadline`` and ``now`` are seconds of one clock, ``size`` is the image's rows in a call, ``remaining``
its model evaluations that are left. Images of one value go in the order in which they were submitted.
"""


def fcfs(arrival: float, size: int, remaining: int, deadline: float | None, now: float) -> float:
    """First come, first served."""
    return arrival
