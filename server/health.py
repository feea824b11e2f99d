"""When a model counts as unhealthy: after so many failed calls of one stage in a row. Pure; knows no engine."""

import threading
from collections.abc import Callable

from mezzotint.engines.image import Stage


class Failures:
    """Counts failed calls; several engine loops may share it.

    A stage has a count of its own, since an engine that always fails runs between others that never do.

    Args:
        max_in_a_row: how many make a model unhealthy; 0 is any number.
        on_unhealthy: hears of it once, in the thread of the last call.
    """

    def __init__(self, max_in_a_row: int, on_unhealthy: Callable[[], None]) -> None:
        self.max_in_a_row = max_in_a_row
        self.has_served = False
        self._on_unhealthy = on_unhealthy
        self._in_a_row: dict[Stage, int] = {}
        self._told = False
        self._lock = threading.Lock()

    def note(self, stage: Stage, failure: Exception | None) -> None:
        """Note the end of one engine call; one that decoded shows that the model serves."""
        with self._lock:
            self._in_a_row[stage] = self._in_a_row.get(stage, 0) + 1 if failure else 0
            self.has_served |= stage is Stage.DECODE and failure is None
            tell = self._in_a_row[stage] == self.max_in_a_row != 0 and not self._told
            self._told |= tell
        if tell:
            self._on_unhealthy()
