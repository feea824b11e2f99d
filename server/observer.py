"""The seam through which metrics and traces watch a server: what happens, said once, to whoever wants to know.

Knows neither Prometheus nor OpenTelemetry. Methods that the engine loop's thread calls have to be quick.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from mezzotint.engines.batch import Batch
from mezzotint.engines.image import Image, Stage
from mezzotint.server.events import Timings

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True)
class Call:
    """An engine call that is done; ``began`` and ``ended`` are seconds of the core's clock."""

    model: str
    stage: Stage
    variant: str
    images: tuple[Image, ...]
    num_rows: int
    began: float
    ended: float


@dataclass(slots=True)
class Window:
    """From the beginning of a request's first call of a stage to the end of its last, and how many there were."""

    began: float
    ended: float
    num_calls: int = 0


@dataclass(frozen=True, slots=True)
class Ending:
    """A request that a core had taken in has ended; its times are seconds of the core's clock.

    Attributes:
        arrival: when the core took it in.
        started: when its first prompt was encoded; None where none was.
        ended: now.
        spent: what its line in the log says.
        windows: when its calls of each stage ran.
        error: why it ended early; None where all of its pictures are there.
        traceparent: the span that it belongs to, as W3C's Trace Context writes it; empty without one.
    """

    model: str
    request_id: str
    arrival: float
    started: float | None
    ended: float
    spent: Timings
    windows: Mapping[Stage, Window] = field(default_factory=lambda: MappingProxyType({}))
    error: Exception | None = None
    traceparent: str = ""


@dataclass(slots=True, eq=False)
class Answer:
    """A client's call for pictures, from when it came until its status has been sent.

    Attributes:
        traceparent: the client's span; an observer that makes one of its own puts that here for those inside.
        model: the bundle that it was for; empty until it is known to be one of ours, so that a client cannot make
            names up.
        code: the name of the gRPC status that it got; empty until it has one.
    """

    request_id: str
    traceparent: str = ""
    model: str = ""
    code: str = ""


class Observer:
    """Whoever wants to know. This one does nothing: it is the default, and others override what they care for."""

    def called(self, call: Call) -> None:
        """Hear of an engine call, in the engine loop's thread."""

    def left(self, model: str, outcome: str) -> None:
        """Hear of an image that left the scheduler, in the engine loop's thread."""

    def flagged(self, model: str) -> None:
        """Hear of a picture that the safety checker flagged, in the engine loop's thread."""

    def ended(self, ending: Ending) -> None:
        """Hear of a request's ending, in any thread, once."""

    def received(self, answer: Answer) -> None:
        """Hear of a client's call that has come."""

    def answered(self, answer: Answer) -> None:
        """Hear of a client's call that has its status; one without a token was never received."""


class Several(Observer):
    """Observers of one server, told one after the other."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._all = tuple(observers)

    def called(self, call: Call) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.called(call)

    def left(self, model: str, outcome: str) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.left(model, outcome)

    def flagged(self, model: str) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.flagged(model)

    def ended(self, ending: Ending) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.ended(ending)

    def received(self, answer: Answer) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.received(answer)

    def answered(self, answer: Answer) -> None:
        """Tell all of them."""
        for observer in self._all:
            observer.answered(answer)


class Engines(Protocol):
    """The three calls of a model, as ``engines.model.Model`` makes them."""

    @property
    def name(self) -> str:
        """The bundle's name."""
        ...

    def encode(self, batch: Batch) -> None:
        """Encode a batch's prompts."""
        ...

    def denoise(self, batch: Batch) -> Any:
        """Run the UNet once."""
        ...

    def decode(self, batch: Batch) -> None:
        """Run one engine of the decoder."""
        ...


class Watched:
    """A model whose engine calls are timed and told; one that fails is not.

    Args:
        engines: the model.
        on_call: hears of each call, in the thread that made it.
        clock: seconds, never going back.
    """

    def __init__(self, engines: Engines, on_call: Callable[[Call], None], clock: Callable[[], float]) -> None:
        self.name = engines.name
        self._engines = engines
        self._on_call = on_call
        self._clock = clock

    def encode(self, batch: Batch) -> None:
        """Encode a batch's prompts."""
        with self._told(batch):
            self._engines.encode(batch)

    def denoise(self, batch: Batch) -> Any:
        """Run the UNet once; returns what the model does."""
        with self._told(batch):
            return self._engines.denoise(batch)

    def decode(self, batch: Batch) -> None:
        """Run one engine of the decoder."""
        with self._told(batch):
            self._engines.decode(batch)

    @contextmanager
    def _told(self, batch: Batch) -> Iterator[None]:
        # what a batch says of its call is that of the next one as soon as this one is done
        stage, variant, num_rows = batch.stage, batch.variant, batch.num_rows
        began = self._clock()
        yield
        self._on_call(Call(self.name, stage, variant, batch.images, num_rows, began, self._clock()))


def traceparent_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the span that a call belongs to by its metadata (W3C Trace Context); empty without a valid one."""
    given = next((value for name, value in metadata if name == "traceparent"), "")
    return given if isinstance(given, str) and _TRACEPARENT.fullmatch(given) else ""
