"""Files that are read again when they change, so that certificates and tokens are renewed without a restart."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from mezzotint.engines.errors import MezzotintError

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

_Stamp = tuple[int, int, int] | None


class Reloaded(Generic[Value]):
    """What some files say now. Any thread may ask.

    Args:
        paths: the files; they are looked at each time, and read only where one is another than before.
        read: makes the value of them.

    Raises:
        MezzotintError: they cannot be read at the start. Later that is one line in the log for each change, and the
            value before it stays.
    """

    def __init__(self, paths: Sequence[Path], read: Callable[[], Value]) -> None:
        self._paths = tuple(paths)
        self._read = read
        self._lock = threading.Lock()
        self._stamps = self._look()  # before reading: what changes meanwhile is read again
        self._value = read()

    def get(self) -> Value:
        """Return the value of the latest files that could be read."""
        with self._lock:
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                self._read_again()
            return self._value

    def _read_again(self) -> None:
        try:
            self._value = self._read()
        except MezzotintError as error:
            logger.error("%s; until then the server goes on with what it read before", error)
        else:
            logger.info("read again, since it has changed: %s", ", ".join(str(path) for path in self._paths))

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> _Stamp:
    """Return what tells a file from the one that was there before; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
