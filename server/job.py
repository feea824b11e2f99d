"""One request inside the core: what it asked for, how far it is, and its events in order. Knows no engine."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from mezzotint.engines.image import Image, Stage
from mezzotint.engines.request import Request
from mezzotint.server.events import Event
from mezzotint.server.logs import about
from mezzotint.server.observer import Call, Window
from mezzotint.server.pictures import PictureOptions
from mezzotint.server.ticket import Ticket

logger = logging.getLogger(__name__)

Toll: TypeAlias = Callable[[Sequence[Image]], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request.

    Attributes:
        client: whose share of the engines it counts for.
        priority: 1 goes first; 0 is the server's middle level.
        traceparent: the span that it belongs to; empty without one.
        toll: what holds while the scheduler takes its images in; raises what they are refused with.
    """

    client: str = ""
    priority: int = 0
    traceparent: str = ""
    toll: Toll = lambda _: nullcontext()


ANYONE = Caller()
"""Who sends a request where nobody is told apart."""


class Job:
    """A request that the core has taken in.

    Args:
        request_id: its name in events, errors and the log.
        request: what was asked for.
        picture: how its pictures are written.
        on_event: hears its events, never two at a time.
        arrival: seconds of the core's clock, as is ``deadline``.
        deadline: when it is too late; None is never.
        caller: who sent it.
    """

    def __init__(
        self,
        request_id: str,
        request: Request,
        picture: PictureOptions,
        on_event: Callable[[Event], None],
        arrival: float,
        deadline: float | None,
        caller: Caller,
    ) -> None:
        self.request_id = request_id
        self.request = request
        self.picture = picture
        self.arrival = arrival
        self.deadline = deadline
        self.caller = caller
        self.windows: dict[Stage, Window] = {}
        self.cancelled = False
        self.ticket: Ticket | None = None
        self.num_undelivered = 0
        self._on_event = on_event
        self._steps: dict[int, int] = {}
        self._emitting = threading.Lock()
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the only event that its caller may still hear is the ending."""
        return self._ended

    @property
    def started(self) -> float | None:
        """When its first prompt was encoded; None where none was."""
        return self.ticket.started if self.ticket else None

    def begin(self, ticket: Ticket) -> None:
        """Note that the scheduler has it."""
        self.ticket = ticket
        self.num_undelivered = len(ticket.images)

    def called(self, call: Call) -> None:
        """Note an engine call that images of its took part in."""
        window = self.windows.setdefault(call.stage, Window(call.began, call.ended))
        window.ended = call.ended
        window.num_calls += 1

    def stepped(self, image: Image) -> bool:
        """Return whether one of its images has completed a step since the last call; Heun's take two evaluations."""
        before, self._steps[image.index] = self._steps.get(image.index, 0), image.step
        return image.step > before

    def emit(self, event: Event) -> None:
        """Tell its caller, unless it has ended."""
        with self._emitting:
            if not self._ended:
                self.tell(event)

    def claim_ending(self) -> bool:
        """Let no more events through; returns True once: to the one who has to ``tell`` the ending."""
        with self._emitting:
            first, self._ended = not self._ended, True
            return first

    def tell(self, event: Event) -> None:
        """Tell its caller, whose failure is only logged."""
        try:
            self._on_event(event)
        except Exception:
            name = type(event).__name__
            logger.exception(
                "request %s: its caller failed to take %s", self.request_id, name, extra=about(self.request_id)
            )


class Worker:
    """Runs one request's work in a shared executor piece by piece, so that its events come in order.

    Args:
        executor: whose threads do the work.
        on_failure: hears of a piece that raised; those behind it still run.
    """

    def __init__(self, executor: Executor, on_failure: Callable[[Exception], None]) -> None:
        self._executor = executor
        self._on_failure = on_failure
        self._pieces: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._busy = False

    def post(self, piece: Callable[[], None]) -> None:
        """Run ``piece`` after those that were posted before; does not wait."""
        with self._lock:
            self._pieces.append(piece)
            if self._busy:
                return
            self._busy = True
        self._executor.submit(self._run)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._pieces:
                    self._busy = False
                    return
                piece = self._pieces.popleft()
            try:
                piece()
            except Exception as error:
                self._on_failure(error)
