"""Asks again and again whether somebody has gone away, where nobody says so."""

import logging
import threading
from typing import Protocol

logger = logging.getLogger(__name__)


class Looks(Protocol):
    """Somebody to look after."""

    def look(self) -> bool:
        """Act on what has happened; returns whether to look again."""
        ...


class Watch:
    """Looks after those that are added, in a thread of its own, until they say that there is no more to see.

    Args:
        every_seconds: how long it waits between two looks.
    """

    def __init__(self, every_seconds: float = 0.1) -> None:
        self._every = every_seconds
        self._lock = threading.Lock()
        self._those: list[Looks] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mezzotint-watch", daemon=True)
        self._thread.start()

    def add(self, one: Looks) -> None:
        """Look after one more."""
        with self._lock:
            self._those.append(one)

    def close(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._every):
            with self._lock:
                those, self._those = self._those, []
            those = [one for one in those if _look(one)]
            with self._lock:
                self._those += those


def _look(one: Looks) -> bool:
    """Have somebody act on what has happened; where that fails it is logged, and they are looked after no more."""
    try:
        return one.look()
    except Exception:
        logger.exception("what a client's going away should have done has failed")
        return False
