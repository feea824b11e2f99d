"""The order of the images that are here: by priority, then by the policy, no client before others by its numbers.

Pure; imports policies alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.server.policy import Policy

Floats = npt.NDArray[np.float64]
_FEW = 2  # images that have an order


@dataclass(slots=True)
class Place:
    """What the order of an image follows from.

    Attributes:
        arrival: seconds, as is ``deadline``; infinity is none.
        priority: smaller ones go first, whatever the policy says.
        client: who asked for it.
        size: the seconds of work that it is in all.
        left: those that are left.
    """

    arrival: float
    deadline: float
    priority: int
    client: str
    size: float
    left: float


def ordered(places: Sequence[Place], policy: Policy, freed: dict[str, float], now: float) -> Sequence[int]:
    """Return the places' indices, the first to go first; ties by their clients' shares, and else as they stand.

    Args:
        places: in the order of submission.
        policy: the order of images of one priority.
        freed: when each client's last image left, in seconds; that of one who is not in it never did.
        now: seconds of the same clock.
    """
    if len(places) < _FEW:
        return range(len(places))
    table = np.array([(p.arrival, p.size, p.left, p.deadline, p.priority) for p in places])
    arrival, size, left, deadline, priority = table.T
    values, ties = policy(arrival, size, left, deadline, now), arrival * 0
    if 1 < len({place.client for place in places}) < len(places):
        names, client = np.unique([place.client for place in places], return_inverse=True)
        last = np.array([freed.get(str(name), -math.inf) for name in names])
        shares = fair_arrivals(arrival, left, np.lexsort((values, priority)), client, last, now)
        if len(set(values.tolist())) < len(values):  # as of all that have not begun, where that alone counts
            ties = fair_arrivals(arrival, left, np.lexsort((values, left >= size, priority)), client, last, now)
        values = policy(shares, size, left, deadline, now)
    found: list[int] = np.lexsort((ties, values, priority)).tolist()
    return found


def fair_arrivals(
    arrival: Floats, left: Floats, own: npt.NDArray[Any], client: npt.NDArray[Any], freed: Floats, now: float
) -> Floats:
    """Return when each image would have come if its client had always waited for its last one to be done.

    A client's first image came when it did, or when the one before it left, whichever is later; its second one comes
    when the work of the first will be done, and so on. So a client with many images has one in the queue, as it were,
    and one with a single image is not moved. After self-clocked fair queueing (Golestani 1994), on the policy's clock
    instead of a virtual one.

    Args:
        arrival: seconds, by image.
        left: seconds of work that are left.
        own: indices in the order that images of one client go in among themselves.
        client: the number of each image's client.
        freed: when each client's last image left.
        now: seconds of the same clock.
    """
    shares = np.empty_like(arrival)
    for number in range(len(freed)):
        mine = own[client[own] == number]
        ahead = np.cumsum(left[mine]) - left[mine]
        shares[mine] = np.maximum(arrival[mine], now + ahead)
        shares[mine[0]] = max(arrival[mine[0]], freed[number])
    return shares
