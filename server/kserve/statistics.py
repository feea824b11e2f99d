"""What each bundle has done, as ``ModelStatistics`` counts it. Knows no wire.

An inference is a picture, an execution a call of the UNet, and a batch's size the rows of a call.
"""

import copy
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from mezzotint.engines.image import Stage
from mezzotint.server.observer import Call, Ending, Observer
from mezzotint.server.ticket import Outcome

_MS, _S = 1e6, 1e9  # in nanoseconds


@dataclass(slots=True)
class Duration:
    """How often something happened, and the nanoseconds of all of it."""

    count: int = 0
    ns: int = 0

    def add(self, ns: float) -> None:
        """Note that it happened once more."""
        self.count += 1
        self.ns += round(ns)


@dataclass(slots=True)
class Counts:
    """What one bundle has done, whoever asked for it and by which protocol.

    Attributes:
        num_pictures: those that were finished.
        last_ms: when the last request ended well, in milliseconds since 1970; 0 is never.
        success: requests that ended well, and how long they took; ``failure`` those that did not.
        queue: of requests that ended well, how long they waited; so ``stages``, how long their calls of a stage took.
        batches: engine calls by stage and rows.
    """

    num_pictures: int = 0
    last_ms: int = 0
    success: Duration = field(default_factory=Duration)
    failure: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    stages: dict[Stage, Duration] = field(default_factory=lambda: defaultdict(Duration))
    batches: dict[tuple[Stage, int], Duration] = field(default_factory=lambda: defaultdict(Duration))

    @property
    def num_executions(self) -> int:
        """The calls of the UNet."""
        return sum(batch.count for (stage, _), batch in self.batches.items() if stage is Stage.DENOISE)


class Statistics(Observer):
    """Counts for each bundle; any thread may tell and ask."""

    def __init__(self, wall_clock: Callable[[], float] = time.time) -> None:
        self._wall_clock = wall_clock
        self._counts: dict[str, Counts] = defaultdict(Counts)
        self._lock = threading.Lock()

    def of(self, model: str) -> Counts:
        """Return a bundle's counts up to now."""
        with self._lock:
            return copy.deepcopy(self._counts[model])

    def called(self, call: Call) -> None:
        """Count an engine call."""
        with self._lock:
            self._counts[call.model].batches[call.stage, call.num_rows].add((call.ended - call.began) * _S)

    def left(self, model: str, outcome: str) -> None:
        """Count an image that was finished."""
        if outcome == Outcome.FINISHED:
            with self._lock:
                self._counts[model].num_pictures += 1

    def ended(self, ending: Ending) -> None:
        """Count a request."""
        spent = ending.spent
        with self._lock:
            counts = self._counts[ending.model]
            if ending.error is not None:
                counts.failure.add(spent.total_ms * _MS)
                return
            counts.last_ms = round(self._wall_clock() * 1e3)
            counts.success.add(spent.total_ms * _MS)
            counts.queue.add(spent.queue_ms * _MS)
            for stage, milliseconds in spent.stage_ms.items():
                counts.stages[stage].add(milliseconds * _MS)
