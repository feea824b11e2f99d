"""The gRPC service ``mezzotint.v1.Mezzotint`` over the cores. Whatever ends a stream early comes from ``status.py``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc
import grpc.aio

from mezzotint.engines.errors import InvalidRequest, NotTaken
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.errors import REQUEST_ID
from mezzotint.server.client_identity import check_operator
from mezzotint.server.convert import message_of, model_info_of, order_of, parse_as, parsed, request_id_of
from mezzotint.server.events import Accepted, Picture, Progress
from mezzotint.server.intake import Intake, Refused, call_of, refusing
from mezzotint.server.lifecycle import Lifecycle
from mezzotint.server.status import Refusal

SERVICE = "mezzotint.v1.Mezzotint"
FEW_BYTES = 4096
"""The most bytes of a request that says a name."""


class Service:
    """Answers the calls of the contract.

    Args:
        lifecycle: knows the models.
        intake: takes the calls for pictures in.
        max_request_bytes: of one message.
    """

    def __init__(self, lifecycle: Lifecycle, intake: Intake, max_request_bytes: int) -> None:
        self._lifecycle = lifecycle
        self._intake = intake
        self._max_request_bytes = max_request_bytes

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler to register; it reads requests itself, so that bad bytes get a sentence of ours."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Generate": grpc.unary_stream_rpc_method_handler(
                    self.generate,
                    request_deserializer=partial(parse_as, pb.GenerateRequest, max_bytes=self._max_request_bytes),
                    response_serializer=pb.GenerateEvent.SerializeToString,
                ),
                "ListModels": grpc.unary_unary_rpc_method_handler(
                    self.list_models,
                    request_deserializer=bytes,  # it says nothing
                    response_serializer=pb.ListModelsResponse.SerializeToString,
                ),
                "LoadModel": grpc.unary_unary_rpc_method_handler(
                    self.load_model,
                    request_deserializer=partial(parse_as, pb.LoadModelRequest, max_bytes=FEW_BYTES),
                    response_serializer=pb.LoadModelResponse.SerializeToString,
                ),
                "UnloadModel": grpc.unary_unary_rpc_method_handler(
                    self.unload_model,
                    request_deserializer=partial(parse_as, pb.UnloadModelRequest, max_bytes=FEW_BYTES),
                    response_serializer=pb.UnloadModelResponse.SerializeToString,
                ),
            },
        )

    async def generate(
        self, message: pb.GenerateRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Write a request's events; a client that goes away, or leaves them unread, takes its request back."""
        refused = await self._write_events(message, context)
        if refused is not None:  # which is all that is still known of the request: this may wait for the client too
            await context.abort(refused.code, refused.message, refused.metadata)

    async def begin(
        self, message: pb.GenerateRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncGenerator[Accepted | Progress | Picture, None]:
        """Tell a request's id and return the stream of its events (``Intake.events``)."""
        request_id = request_id_of(message)
        await context.send_initial_metadata(((REQUEST_ID, request_id),))
        return self._intake.events(call_of(request_id, context), partial(order_of, message))

    async def _write_events(
        self, message: pb.GenerateRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> Refusal | None:
        """Write a request's events; returns why it ended early, where it did."""
        try:
            async with aclosing(await self.begin(message, context)) as events:
                async for event in events:
                    try:
                        await self._intake.write(message_of(event), context)
                    except NotTaken as error:
                        await events.athrow(error)
        except Refused as error:
            return error.refusal
        return None

    async def list_models(self, _: bytes, __: grpc.aio.ServicerContext[Any, Any]) -> pb.ListModelsResponse:
        """List the bundles that are known, each of their versions on its own."""
        return pb.ListModelsResponse(models=[model_info_of(version) for version in self._lifecycle.catalog.versions])

    async def load_model(
        self, message: pb.LoadModelRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.LoadModelResponse:
        """Load a bundle of the model repository, and answer when it is served."""
        async with refusing(context):
            check_operator()
            loaded = await self._lifecycle.load(parsed(message).bundle)
            return pb.LoadModelResponse(model=model_info_of(loaded.version), replaced_digest=loaded.replaced_digest)

    async def unload_model(
        self, message: pb.UnloadModelRequest | InvalidRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.UnloadModelResponse:
        """Unload a model, and answer when its memory is given back."""
        async with refusing(context):
            check_operator()
            await self._lifecycle.unload(parsed(message).name)
            return pb.UnloadModelResponse()
