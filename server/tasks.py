"""Tasks that outlive those who asked for them: kept from being collected, and waited for at the end."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from mezzotint.engines.errors import MezzotintError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Tasks:
    """The tasks that somebody has begun; of the event loop in which they were."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __bool__(self) -> bool:
        return bool(self._running)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine to its end, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def first(self) -> None:
        """Wait until one of them has ended, well or not; there must be one."""
        await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def all(self, timeout: float | None = None) -> None:
        """Wait until those that run now have ended, well or not, or so many seconds have passed."""
        if self._running:
            await asyncio.wait(tuple(self._running), timeout=timeout)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, MezzotintError):  # whose sentence is for whoever still waits
            logger.error("what was begun in the background failed", exc_info=error)
