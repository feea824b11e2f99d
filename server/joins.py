"""Requests that are asked for again while they run: who sends the same id hears the rest of the one that runs.

So a client whose connection broke can send its request again without having it painted twice. Knows no wire; front ends
call it instead of ``Core.submit``.
"""

import threading
from collections.abc import Callable, Hashable
from dataclasses import fields
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np

from mezzotint.engines.errors import RequestIdTaken
from mezzotint.server.events import Event, Failed, Finished, Progress

OnEvent: TypeAlias = Callable[[Event], None]


class Handle(Protocol):
    """What ``Core.submit`` returns."""

    def cancel(self) -> None:
        """Take the request back."""
        ...

    def extend(self, deadline: float | None) -> None:
        """Allow the request until a later deadline; None is any time."""
        ...


class _Running:
    """A request that runs, and those who hear of it."""

    def __init__(self, asked: object) -> None:
        self.asked = asked
        self.handle: Handle | None = None
        self._lock = threading.Lock()
        self._callers: list[OnEvent] = []
        self._kept: list[Event] = []  # what a caller that may still come has missed; progress that is over is not
        self._ended = False

    def join(self, on_event: OnEvent) -> bool:
        """Let another caller hear what it has missed and all that comes; False where the request has ended."""
        with self._lock:
            if self._ended:
                return False
            for event in self._kept:
                on_event(event)
            self._callers.append(on_event)
            return True

    def leave(self, on_event: OnEvent) -> bool:
        """Tell a caller nothing more; returns whether it was the last one."""
        with self._lock:
            if on_event in self._callers:
                self._callers.remove(on_event)
            if self._callers:
                return False
            self._kept.clear()
            return True

    def tell(self, event: Event) -> bool:
        """Tell every caller; returns whether that was the ending."""
        with self._lock:
            self._ended = isinstance(event, Finished | Failed)
            if self._ended:
                self._kept.clear()
            elif self._callers and not isinstance(event, Progress):
                self._kept.append(event)
            for on_event in self._callers:
                on_event(event)
            return self._ended


class Joined:
    """One caller's part in a request that runs."""

    def __init__(self, leave: Callable[[], None]) -> None:
        self.cancel = leave
        """Hear nothing more; the request is taken back when its last caller has left."""


class Joins:
    """The requests that run, by their ids."""

    def __init__(self) -> None:
        self._running: dict[Hashable, _Running] = {}
        self._lock = threading.Lock()

    def enter(
        self,
        key: Hashable,
        asked: object,
        start: Callable[[OnEvent], Handle],
        *,
        on_event: OnEvent,
        deadline: float | None = None,
    ) -> Joined:
        """Start a request, or join the one of that key.

        Args:
            key: the request's id, and whose it is where clients must not hear each other's.
            asked: all that the request asks for, a dataclass.
            start: submits it; called only where none of that key runs.
            on_event: hears its events; one that joins hears of what it has missed but the progress.
            deadline: of this caller; the request may take until the last of its callers'.

        Raises:
            RequestIdTaken: another request of that key runs.
            MezzotintError: whatever ``start`` raises.
        """
        with self._lock:
            running = self._running.get(key)
            if running is not None and not same(running.asked, asked):
                raise RequestIdTaken(
                    "request_id: another request of this id is running; send that one to join it, or choose another id"
                )
            if running is None or not running.join(on_event):
                running = self._start(key, asked, start, on_event)
            elif running.handle is not None:
                running.handle.extend(deadline)
            return Joined(partial(self._leave, key, running, on_event))

    def _start(self, key: Hashable, asked: object, start: Callable[[OnEvent], Handle], on_event: OnEvent) -> _Running:
        running = _Running(asked)
        running.join(on_event)
        running.handle = start(partial(self._tell, key, running))
        self._running[key] = running
        return running

    def _tell(self, key: Hashable, running: _Running, event: Event) -> None:
        if running.tell(event):
            with self._lock:
                self._forget(key, running)

    def _leave(self, key: Hashable, running: _Running, on_event: OnEvent) -> None:
        with self._lock:
            if running.leave(on_event):
                self._forget(key, running)  # whoever asks again now must not join what is about to be cancelled
                if running.handle is not None:
                    running.handle.cancel()

    def _forget(self, key: Hashable, running: _Running) -> None:
        if self._running.get(key) is running:
            del self._running[key]


def same(one: Any, other: Any) -> bool:
    """Return whether two dataclasses, which may hold arrays and further ones, say the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    if not hasattr(one, "__dataclass_fields__"):
        return bool(one == other)
    return all(same(getattr(one, field.name), getattr(other, field.name)) for field in fields(one))
