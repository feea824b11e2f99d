"""Takes calls for pictures in, whichever protocol they came by: limits, rates, the core, the audit and the observers.

Knows gRPC's context and status, and no message. A front end says how to read its message, and puts the events in its
own words.
"""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
import grpc.aio

from mezzotint.engines.errors import DeadlineExpired, NotTaken
from mezzotint.engines.image import Image
from mezzotint.engines.request import Request
from mezzotint.server.access import AccessConfig
from mezzotint.server.audit import log_refusal
from mezzotint.server.client_identity import Client, client_of
from mezzotint.server.events import Accepted, Event, Failed, Finished, Picture, Progress
from mezzotint.server.job import Caller
from mezzotint.server.joins import Joined, Joins
from mezzotint.server.lifecycle import Lifecycle
from mezzotint.server.observer import Answer, Observer, traceparent_of
from mezzotint.server.outbox import Outbox
from mezzotint.server.pictures import PictureOptions
from mezzotint.server.rates import Buckets, unet_rows
from mezzotint.server.served import Served
from mezzotint.server.status import Refusal, refusal


@dataclass(frozen=True, slots=True)
class Order:
    """What a call asks for, in our own words.

    Attributes:
        max_seconds: what it allows itself from its arrival on, beside the call's deadline; None is any time.
    """

    model: str
    request: Request
    picture: PictureOptions
    priority: int
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call for pictures.

    Attributes:
        deadline: in seconds of ``time.monotonic``; None is never.
    """

    request_id: str
    client: Client
    traceparent: str
    deadline: float | None


class Refused(Exception):
    """A call that ends early; says how on the wire."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class Intake:
    """Where all front ends hand their calls in.

    Args:
        lifecycle: finds the models.
        observer: hears of each call and of its status.
        access: what a request may ask for, and how long a client may leave what it is written.
    """

    def __init__(self, lifecycle: Lifecycle, observer: Observer, access: AccessConfig) -> None:
        self._lifecycle = lifecycle
        self._joins = Joins()
        self._observer = observer
        self._limits = access.limits
        self._unread_seconds = access.unread_seconds
        self._buckets = None if access.rate is None else Buckets(access.rate)

    async def events(
        self, call: Call, read: Callable[[], Order]
    ) -> AsyncGenerator[Accepted | Progress | Picture, None]:
        """Stream the events of a call, whose end says that all pictures are there; closing it takes the request back.

        So does a NotTaken that is thrown in, with which it then ends.

        Args:
            call: who calls, and until when.
            read: reads the message; raises InvalidRequest.

        Raises:
            Refused: it ended early.
        """
        answer = Answer(call.request_id, call.traceparent)
        arrival = time.monotonic()
        self._observer.received(answer)
        accepted = False
        try:
            events, handle = await self._enter(call, read(), answer, arrival)
            try:
                async for event in _until_the_ending(events):
                    accepted = True
                    yield event
            finally:
                events.close()
                handle.cancel()  # nothing happens where it has ended
            answer.code = grpc.StatusCode.OK.name
        except Exception as error:
            refused = refusal(error, call.request_id)
            answer.code = refused.code.name
            if not accepted and refused.code is not grpc.StatusCode.INTERNAL:  # that is the server's own failure
                log_refusal(call.request_id, call.client, refused.code, error)
            raise Refused(refused) from error
        finally:
            if not answer.code:  # gRPC took the call away: its deadline has passed, or its client is gone
                is_late = call.deadline is not None and time.monotonic() >= call.deadline
                answer.code = (grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED).name
            self._observer.answered(answer)

    async def write(self, message: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        """Write a message of a stream. Raises NotTaken where its client leaves it: others wait behind it, in memory."""
        try:
            async with asyncio.timeout(self._unread_seconds):
                await context.write(message)
        except TimeoutError:
            raise NotTaken(
                f"an answer was not taken for {self._unread_seconds:g} s, and those behind it are forgotten; "
                "read the stream"
            ) from None

    async def _enter(self, call: Call, order: Order, answer: Answer, arrival: float) -> tuple[Outbox, Joined]:
        """Hand an order to the core of its model, or to who paints it already; returns what it hears and its place.

        Raises what ``_find``, the limits and ``Joins.enter`` do.
        """
        deadline = call.deadline
        if order.max_seconds is not None:
            deadline = min(arrival + order.max_seconds, math.inf if deadline is None else deadline)
        core = await self._find(order.model, deadline)
        answer.model = core.model.name
        self._limits.check(order.request, core.model.manifest)
        events = Outbox()
        start = partial(
            core.submit,
            order.request,
            request_id=call.request_id,
            picture=order.picture,
            deadline=deadline,
            caller=Caller(str(call.client), order.priority, answer.traceparent, partial(self._toll, call.client)),
        )
        handle = self._joins.enter(
            (call.client, call.request_id),
            order,
            lambda on_event: start(on_event=on_event),
            on_event=partial(_hand_over, asyncio.get_running_loop(), events),
            deadline=deadline,
        )
        return events, handle

    async def _find(self, model: str, deadline: float | None) -> Served:
        """Return what answers for a model. Raises what ``Lifecycle.find`` does, and DeadlineExpired."""
        limit = asyncio.timeout(None if deadline is None else deadline - time.monotonic())
        try:
            async with limit:
                return await self._lifecycle.find(model)
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExpired(
                "the deadline passed before the model was loaded again; allow the request more time"
            ) from None

    def _toll(self, client: Client, images: Sequence[Image]) -> AbstractContextManager[None]:
        return nullcontext() if self._buckets is None else self._buckets.paid(client, unet_rows(images))


def call_of(request_id: str, context: grpc.aio.ServicerContext[Any, Any]) -> Call:
    """Return what gRPC knows of the call that the current task serves."""
    seconds = context.time_remaining()
    deadline = None if seconds is None else time.monotonic() + seconds
    return Call(request_id, client_of(context), traceparent_of(context.invocation_metadata() or ()), deadline)


@asynccontextmanager
async def refusing(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
    """End a call whose work raises with that error's status."""
    try:
        yield
    except Exception as error:
        request_id = uuid.uuid4().hex
        refused = refusal(error, request_id)
        log_refusal(request_id, client_of(context), refused.code, error)
        await context.abort(refused.code, refused.message, refused.metadata)


def _hand_over(loop: asyncio.AbstractEventLoop, events: Outbox, event: Event) -> None:
    """Put an event of another thread into a queue of the event loop's."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(events.put_nowait, event)


async def _until_the_ending(events: Outbox) -> AsyncIterator[Accepted | Progress | Picture]:
    while True:
        match await events.get():
            case Finished():
                return
            case Failed(error=error):
                raise error
            case event:
                yield event
