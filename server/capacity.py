"""How many replicas a load needs, and how long its pictures take: from step-time curves, by queueing theory. Pure.

Routing to the replica with the least work is one queue before all of them. Where a call holds several pictures they
slow each other by what the curve says, so that pictures here are a birth-death chain whose speeds follow from it
(processor sharing; Kleinrock 1976, vol. 2, 4.4). For pictures that wait, its mean is corrected for sizes that are not
exponential (Allen & Cunneen; exact for one replica and one picture a call, Pollaczek–Khinchine).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mezzotint.engines.component import Component
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.model import EngineKey
from mezzotint.engines.prepared import max_rows
from mezzotint.engines.rows import call_ms
from mezzotint.engines.variants import FULL, TINY

_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Kind:
    """Pictures of one number of steps, and their share of all."""

    steps: int
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """What one replica can do.

    Attributes:
        call_seconds: of a UNet call, by the pictures in it.
        rest_seconds: of all else that a picture takes; it holds up those that share calls with it.
        images_a_call: the most that a call holds.
    """

    call_seconds: Callable[[int], float]
    rest_seconds: float
    images_a_call: int

    def picture_seconds(self, steps: float, sharing: int = 1) -> float:
        """Return the seconds of a picture that shares each call, and its decoding, with so many."""
        return steps * self.call_seconds(sharing) + sharing * self.rest_seconds

    def pictures_a_second(self, steps: float) -> float:
        """Return the most that it makes."""
        return self.images_a_call / self.picture_seconds(steps, self.images_a_call)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a load comes to, in seconds from a picture's arrival to its end; infinite where it is too much.

    Attributes:
        utilisation: the share of the time that the engines are busy.
    """

    replicas: int
    utilisation: float
    mean: float
    p99: float


def host_of(engines: Mapping[EngineKey, EngineEntry], rows: int) -> Host:
    """Return what a replica does whose engines have these step-time curves, at the size they were measured at.

    Args:
        engines: those that are served, with this host's curves (``engines.bundle.wanted_engines``).
        rows: of a picture in a UNet call: 2 with guidance.

    Raises:
        BundleError: an engine has no such curve.
    """
    unet = engines[Component.UNET, FULL]
    text = _seconds(engines[Component.TEXT_ENCODER, FULL], rows)
    _seconds(unet, rows)
    parts = [e for (component, variant), e in engines.items() if component is Component.VAE_DECODER and variant != TINY]
    decoder = sum(_seconds(part, 1) for part in parts)
    return Host(lambda pictures: _seconds(unet, rows * pictures), text + decoder, max(1, max_rows(unet) // rows))


def predict(host: Host, kinds: Sequence[Kind], rate: float, replicas: int) -> Prediction:
    """Return how long pictures take that come independently, ``rate`` a second, at so many replicas.

    Priorities, shares and ``--policy`` only change who waits; the mean is that of first come, first served.
    """
    steps = _mean_steps(kinds)
    utilisation = rate / (replicas * host.pictures_a_second(steps))
    if utilisation >= 1:
        return Prediction(replicas, utilisation, math.inf, math.inf)
    busy, queue, waits = _chain(host, steps, rate, replicas)
    alone = host.picture_seconds(steps)
    stretch = busy / rate / alone  # by sharing calls, in the mean
    wait = queue / rate * (1 + _variability(host, kinds)) / 2
    p99 = _quantile(0.99, waits, wait, [(kind.share, stretch * host.picture_seconds(kind.steps)) for kind in kinds])
    return Prediction(replicas, utilisation, wait + stretch * alone, p99)


def replicas_for(host: Host, kinds: Sequence[Kind], rate: float, p99: float) -> int | None:
    """Return the fewest replicas whose 99th percentile is within ``p99`` seconds; None where no number is enough."""
    if predict(host, kinds, rate * 1e-6, 1).p99 > p99:  # nobody waits, and it is too slow even so
        return None
    few = max(1, math.ceil(rate / host.pictures_a_second(_mean_steps(kinds))))
    many = few
    while predict(host, kinds, rate, many).p99 > p99:
        few, many = many + 1, 2 * many
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if predict(host, kinds, rate, middle).p99 <= p99 else (middle + 1, many)
    return many


def _chain(host: Host, steps: float, rate: float, replicas: int) -> tuple[float, float, float]:
    """Return the mean number of pictures in the making and of those that wait, and the share that has to."""
    speeds = [0.0, *(k / host.picture_seconds(steps, k) for k in range(1, host.images_a_call + 1))]
    places = replicas * host.images_a_call
    total, busy, log_weight = 1.0, 0.0, 0.0  # weights relative to that of an empty system; by logarithms, as they grow
    scale = 0.0
    for pictures in range(1, places + 1):
        each, more = divmod(pictures, replicas)
        speed = (replicas - more) * speeds[each] + more * speeds[min(each + 1, host.images_a_call)]
        log_weight += math.log(rate / speed)
        if log_weight > scale:
            total, busy = (amount * math.exp(scale - log_weight) for amount in (total, busy))
            scale = log_weight
        total += math.exp(log_weight - scale)
        busy += pictures * math.exp(log_weight - scale)
    full = math.exp(log_weight - scale)
    ratio = rate / (replicas * speeds[-1])  # beyond all places the weights fall by it
    tail = full * ratio / (1 - ratio)
    total, busy = total + tail, busy + places * tail
    return busy / total, tail / (1 - ratio) / total, (full + tail) / total


def _variability(host: Host, kinds: Sequence[Kind]) -> float:
    """Return the squared coefficient of variation of a picture's seconds."""
    total = sum(kind.share for kind in kinds)
    mean = host.picture_seconds(_mean_steps(kinds))
    square = sum(kind.share * host.picture_seconds(kind.steps) ** 2 for kind in kinds) / total
    return max(0.0, square / mean**2 - 1)


def _quantile(share: float, waits: float, wait: float, sizes: Sequence[tuple[float, float]]) -> float:
    """Return a quantile of wait plus size: a share ``waits`` waits, exponentially, so that the mean is ``wait``."""
    total = sum(part for part, _ in sizes)

    def beyond(seconds: float) -> float:
        late = 0.0
        for part, size in sizes:
            over = seconds - size
            late += part * (1.0 if over < 0 else waits * math.exp(-over * waits / wait) if wait > 0 else 0.0)
        return late / total

    low, high = 0.0, max(size for _, size in sizes) + 1e-9
    while beyond(high) > 1 - share:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) <= 1 - share else (middle, high)
    return high


def _mean_steps(kinds: Sequence[Kind]) -> float:
    return sum(kind.share * kind.steps for kind in kinds) / sum(kind.share for kind in kinds)


def _seconds(entry: EngineEntry, rows: int) -> float:
    """Return the seconds of an engine's call of so many rows, split where none of its measured calls holds them.

    Raises BundleError where none was measured.
    """
    measured = entry.step_ms
    if not measured:
        raise BundleError(
            f"{entry.component} {entry.variant}: has no step times; run `mezzotint tune` on the machine that will serve"
        )
    return call_ms(rows, tuple(measured), measured) / 1e3
