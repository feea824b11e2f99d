"""The gRPC service ``mezzotint.v1.Mezzotint`` over the cores. Whatever ends a stream early comes from ``status.py``."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from functools import partial
from typing import Any

import grpc
import grpc.aio

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.image import Image
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig
from mezzotint.server.audit import log_refusal
from mezzotint.server.client_identity import Client, client_of
from mezzotint.server.convert import message_of, model_info_of, order_of, parse_as, parsed, request_id_of
from mezzotint.server.events import Accepted, Event, Failed, Finished, Picture, Progress
from mezzotint.server.job import Caller
from mezzotint.server.joins import Joins
from mezzotint.server.lifecycle import Lifecycle
from mezzotint.server.observer import Answer, Observer, traceparent_of
from mezzotint.server.outbox import Outbox
from mezzotint.server.rates import Buckets, unet_rows
from mezzotint.server.status import REQUEST_ID, refusal

SERVICE = "mezzotint.v1.Mezzotint"
_FEW_BYTES = 4096  # of a request that says a name


class Service:
    """Answers the calls of the contract."""

    def __init__(
        self, lifecycle: Lifecycle, observer: Observer | None = None, access: AccessConfig | None = None
    ) -> None:
        self._lifecycle = lifecycle
        self._joins = Joins()
        self._observer = observer or Observer()
        self._access = access or AccessConfig()
        self._buckets = None if self._access.rate is None else Buckets(self._access.rate)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register; it reads requests itself, so that bad bytes get a sentence of ours."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Generate": grpc.unary_stream_rpc_method_handler(
                    self.generate,
                    request_deserializer=partial(
                        parse_as, pb.GenerateRequest, max_bytes=self._access.max_request_bytes
                    ),
                    response_serializer=pb.GenerateEvent.SerializeToString,
                ),
                "ListModels": grpc.unary_unary_rpc_method_handler(
                    self.list_models,
                    request_deserializer=bytes,  # it says nothing
                    response_serializer=pb.ListModelsResponse.SerializeToString,
                ),
                "LoadModel": grpc.unary_unary_rpc_method_handler(
                    self.load_model,
                    request_deserializer=partial(parse_as, pb.LoadModelRequest, max_bytes=_FEW_BYTES),
                    response_serializer=pb.LoadModelResponse.SerializeToString,
                ),
                "UnloadModel": grpc.unary_unary_rpc_method_handler(
                    self.unload_model,
                    request_deserializer=partial(parse_as, pb.UnloadModelRequest, max_bytes=_FEW_BYTES),
                    response_serializer=pb.UnloadModelResponse.SerializeToString,
                ),
            },
        )

    async def generate(
        self, message: pb.GenerateRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.GenerateEvent]:
        """Stream a request's events; a client that goes away takes its request back."""
        request_id = request_id_of(message)
        await context.send_initial_metadata(((REQUEST_ID, request_id),))
        seconds = context.time_remaining()
        deadline = None if seconds is None else time.monotonic() + seconds
        answer = Answer(request_id, traceparent_of(context.invocation_metadata() or ()))
        self._observer.received(answer)
        client, accepted = client_of(context), False
        try:
            order = order_of(message)
            core = await self._lifecycle.find(order.model)
            answer.model = core.model.name
            self._access.limits.check(order.request, core.model.manifest)
            events = Outbox()
            loop = asyncio.get_running_loop()
            start = partial(
                core.submit,
                order.request,
                request_id=request_id,
                picture=order.picture,
                deadline=deadline,
                caller=Caller(str(client), order.priority, answer.traceparent, partial(self._toll, client)),
            )
            handle = self._joins.enter(
                (client, request_id),
                order,
                lambda on_event: start(on_event=on_event),
                on_event=partial(_hand_over, loop, events),
                deadline=deadline,
            )
            try:
                async for event in _until_the_ending(events):
                    accepted = True
                    yield message_of(event)
            finally:
                handle.cancel()  # nothing happens where it has ended
            answer.code = grpc.StatusCode.OK.name
        except Exception as error:
            refused = refusal(error, request_id)
            answer.code = refused.code.name
            if not accepted:
                log_refusal(request_id, client, refused.code, error)
            await context.abort(refused.code, refused.message, refused.metadata)
        finally:
            if not answer.code:  # gRPC took the call away: its deadline has passed, or its client is gone
                is_late = deadline is not None and time.monotonic() >= deadline
                answer.code = (grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED).name
            self._observer.answered(answer)

    def _toll(self, client: Client, images: Sequence[Image]) -> AbstractContextManager[None]:
        return nullcontext() if self._buckets is None else self._buckets.paid(client, unet_rows(images))

    async def list_models(self, _: bytes, __: grpc.aio.ServicerContext[Any, Any]) -> pb.ListModelsResponse:
        """List the bundles that are known, each of their versions on its own."""
        return pb.ListModelsResponse(models=[model_info_of(version) for version in self._lifecycle.catalog.versions])

    async def load_model(
        self, message: pb.LoadModelRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.LoadModelResponse:
        """Load a bundle of the model repository, and answer when it is served."""
        async with _refusing(context):
            loaded = await self._lifecycle.load(parsed(message).bundle)
            return pb.LoadModelResponse(model=model_info_of(loaded.version), replaced_digest=loaded.replaced_digest)

    async def unload_model(
        self, message: pb.UnloadModelRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UnloadModelResponse:
        """Unload a model, and answer when its memory is given back."""
        async with _refusing(context):
            await self._lifecycle.unload(parsed(message).name)
            return pb.UnloadModelResponse()


@asynccontextmanager
async def _refusing(context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[None]:
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
