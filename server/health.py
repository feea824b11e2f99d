"""When a model counts as unhealthy: after so many failed calls of one stage in a row. Pure; knows no engine."""

import threading
from collections.abc import Callable

from mezzotint.engines.image import Stage


class Failures:
    """Counts failed calls; several engine loops may share it.

    A stage has a count of its own, since an engine that always fails runs between others that never do. Of a size that
    a stage never succeeded at, a failure is that size's own, which may be too much for the device: it does not count,
    unless the size is the one that was tried as the model was loaded.

    Args:
        max_in_a_row: how many make a model unhealthy; 0 is any number.
        on_unhealthy: hears of it once, in the thread of the last call.
        before: those of the same model before it was loaded again; what worked then is not new.

    Attributes:
        own_size: the (rows, columns) of latents that were tried; None where nobody said, and all failures count.
    """

    def __init__(self, max_in_a_row: int, on_unhealthy: Callable[[], None], before: "Failures | None" = None) -> None:
        self.max_in_a_row = max_in_a_row
        self.has_served = False
        self.own_size: tuple[int, int] | None = None
        self._worked: set[tuple[Stage, tuple[int, int] | None]] = before._worked if before else set()
        self._on_unhealthy = on_unhealthy
        self._in_a_row: dict[Stage, int] = {}
        self._told = False
        self._lock = threading.Lock()

    def note(self, stage: Stage, failure: Exception | None, size: tuple[int, int] | None = None) -> None:
        """Note the end of a call on (rows, columns) of latents; one that decoded shows that the model serves."""
        with self._lock:
            if failure is None:
                self._worked.add((stage, size))
            elif None not in (size, self.own_size) and size != self.own_size and (stage, size) not in self._worked:
                return
            self._in_a_row[stage] = self._in_a_row.get(stage, 0) + 1 if failure else 0
            self.has_served |= stage is Stage.DECODE and failure is None
            tell = self._in_a_row[stage] == self.max_in_a_row != 0 and not self._told
            self._told |= tell
        if tell:
            self._on_unhealthy()
