"""``ModelInfer`` and ``ModelStreamInfer``: a message becomes an order, and its events the protocol's answers."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc.aio

from mezzotint.engines.errors import InvalidRequest, NotTaken, Unsupported
from mezzotint.engines.request import final_size_of
from mezzotint.proto import kserve_pb2 as pb
from mezzotint.proto.errors import REQUEST_ID
from mezzotint.server.catalog import Catalog
from mezzotint.server.convert import is_id, parsed
from mezzotint.server.events import Accepted, Picture, Progress
from mezzotint.server.intake import Intake, Order, Refused, call_of
from mezzotint.server.kserve import wire
from mezzotint.server.kserve.memory import Place, Regions, check_room
from mezzotint.server.kserve.models import VERSION, Face, find, is_decoupled
from mezzotint.server.kserve.tensors import Array, Asked, picture_outputs, progress_outputs, read_inputs
from mezzotint.server.status import Refusal, refusal

_MAX_OPEN = 256  # requests of one stream that are not answered yet; no more are read until some are
_MAX_ID_LENGTH = 64
_UNARY = "ModelInfer RPC doesn't support models with decoupled transaction policy"  # Triton's own sentence
_FINAL = "triton_final_response"

Message = pb.ModelInferRequest | InvalidRequest
Context = grpc.aio.ServicerContext[Any, Any]


class Inference:
    """Answers requests for pictures.

    Args:
        intake: takes them in.
        catalog: knows the models.
        regions: where arrays may lie beside messages.
    """

    def __init__(self, intake: Intake, catalog: Catalog, regions: Regions) -> None:
        self._intake = intake
        self._catalog = catalog
        self._regions = regions

    async def infer(self, message: Message, context: Context) -> pb.ModelInferResponse:
        """Answer one request with all of its pictures; a client that goes away takes it back."""
        turn = _Turn(message, self._catalog, self._regions)
        await context.send_initial_metadata(((REQUEST_ID, turn.request_id),))
        try:
            async with aclosing(self._answers(turn, context, is_stream=False)) as answers:
                return await anext(answers)
        except Exception as error:
            refused = error.refusal if isinstance(error, Refused) else refusal(error, turn.request_id)
            await context.abort(refused.code, refused.message, refused.metadata)

    async def stream_infer(self, messages: AsyncIterable[Message], context: Context) -> None:
        """Answer any number of requests, several at a time; a client that goes away takes all of them back.

        As Triton's, those for models that are not decoupled are answered in the order in which they came.
        """
        refused = await self._answer_all(messages, context)
        if refused is not None:  # which is all that is still known of the answers: this may wait for the client too
            await context.abort(refused.code, refused.message, refused.metadata)

    async def _answer_all(self, messages: AsyncIterable[Message], context: Context) -> Refusal | None:
        """Answer what comes; returns why no more is answered, where the client reads nothing."""
        writing, room = asyncio.Lock(), asyncio.Semaphore(_MAX_OPEN)
        before: asyncio.Task[None] | None = None
        refused: Refusal | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                async for message in messages:
                    await room.acquire()
                    task = tasks.create_task(self._answer(message, context, writing, before))
                    task.add_done_callback(lambda _: room.release())
                    if not self._is_decoupled(message):
                        before = task
        except* NotTaken as group:
            refused = refusal(group.exceptions[0], uuid.uuid4().hex)
        return refused

    def _is_decoupled(self, message: Message) -> bool:
        return isinstance(message, pb.ModelInferRequest) and is_decoupled(self._catalog, message.model_name)

    async def _answer(
        self, message: Message, context: Context, writing: asyncio.Lock, before: asyncio.Task[None] | None
    ) -> None:
        turn = _Turn(message, self._catalog, self._regions)

        async def write(answer: pb.ModelStreamInferResponse) -> None:
            if before is not None and not turn.is_decoupled:
                await asyncio.wait((before,))
            async with writing:
                await self._intake.write(answer, context)

        try:
            async with aclosing(self._answers(turn, context, is_stream=True)) as answers:
                async for answer in answers:
                    await write(pb.ModelStreamInferResponse(infer_response=answer))
        except NotTaken:
            raise  # nobody would read that either
        except Exception as error:
            refused = error.refusal if isinstance(error, Refused) else refusal(error, turn.request_id)
            failed = turn.response(final=True)
            await write(pb.ModelStreamInferResponse(error_message=refused.message, infer_response=failed))

    async def _answers(
        self, turn: "_Turn", context: Context, *, is_stream: bool
    ) -> AsyncGenerator[pb.ModelInferResponse, None]:
        call = call_of(turn.request_id, context)
        pictures: list[Picture] = []
        async with aclosing(self._intake.events(call, partial(turn.order, is_stream=is_stream))) as events:
            async for event in events:
                if isinstance(event, Accepted):
                    turn.warnings = event.warnings
                elif not turn.is_decoupled:
                    pictures += [event] if isinstance(event, Picture) else []
                elif outputs := turn.outputs_of(event):
                    yield turn.response(outputs, final=False)
        if not turn.is_decoupled:
            pictures.sort(key=lambda picture: picture.image_index)
            yield turn.response(picture_outputs(pictures, turn.wanted), final=is_stream or None)
        elif turn.wants_empty_final:
            yield turn.response(final=True)


class _Turn:
    """One request, from its message to its answers."""

    def __init__(self, message: Message, catalog: Catalog, regions: Regions) -> None:
        self._message = message
        self._catalog = catalog
        self._regions = regions
        self._face: Face | None = None
        self._places: dict[str, Place] = {}
        self._asked: Asked | None = None
        self.warnings: tuple[str, ...] = ()
        self.wants_empty_final = False
        self.request_id = _request_id_of(message)

    @property
    def is_decoupled(self) -> bool:
        """Whether it gets an answer for each event; not known before it is read."""
        return self._face is not None and self._face.decoupled

    @property
    def wanted(self) -> frozenset[str]:
        """The outputs that it wants."""
        return self._asked.outputs if self._asked else frozenset()

    def order(self, *, is_stream: bool) -> Order:
        """Read it. Raises InvalidRequest, ModelNotFound, and Unsupported where one answer cannot be all."""
        message = parsed(self._message)
        self._face = find(self._catalog, message.model_name, message.model_version)
        decoupled = self._face.decoupled
        if decoupled and not is_stream:
            raise Unsupported(_UNARY)
        priority, timeout_us = wire.parameter(message, "priority"), wire.parameter(message, "timeout")
        self.wants_empty_final = wire.wants_empty_final(message)
        self._places = wire.places_of(message, self._regions)
        outputs = [output.name for output in message.outputs]
        asked = read_inputs(wire.arrays_of(message, self._regions, decoupled=decoupled), outputs, decoupled=decoupled)
        self._asked = asked
        self._check_room(asked)
        return Order(
            self._face.bundle, asked.request, asked.picture, priority, timeout_us / 1e6 if timeout_us else None
        )

    def _check_room(self, asked: Asked) -> None:
        """Refuse a place in shared memory that the pixels do not fit, before any is made. Raises InvalidRequest."""
        place = self._places.get("IMAGES")
        manifest = None if self._face is None else self._catalog.version(self._face.bundle).manifest
        if place is None or manifest is None:
            return
        height, width = final_size_of(asked.request, manifest)
        num_pictures = 1 if self.is_decoupled else asked.request.num_images
        check_room("output 'IMAGES'", place, 3 * num_pictures * height * width)

    def outputs_of(self, event: Progress | Picture) -> dict[str, Array]:
        """Return what one event says of the outputs that are wanted; nothing where that is none of it."""
        if isinstance(event, Picture):
            return picture_outputs([event], self.wanted)
        return progress_outputs(event, self.wanted) if self._asked and self._asked.wants_progress else {}

    def response(self, outputs: dict[str, Array] | None = None, *, final: bool | None = None) -> pb.ModelInferResponse:
        """Return an answer; ``final`` is what a stream's says of whether another follows."""
        response = pb.ModelInferResponse(model_version=VERSION)
        if isinstance(self._message, pb.ModelInferRequest):
            response.id, response.model_name = self._message.id, self._message.model_name
        if self._face is not None:
            response.model_name = self._face.name
        if self.warnings:
            response.parameters["warnings"].string_param = " ".join(self.warnings)
        if final is not None:
            response.parameters[_FINAL].bool_param = final
        wire.fill(response, outputs or {}, self._places, self._regions)
        return response


def _request_id_of(message: Message) -> str:
    """Return an id for the log and the core: the client's own, which others may have too, with a fresh end."""
    given, fresh = "" if isinstance(message, InvalidRequest) else message.id, uuid.uuid4().hex
    return f"{given}.{fresh[:12]}" if given and len(given) <= _MAX_ID_LENGTH and is_id(given) else fresh
