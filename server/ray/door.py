"""What Serve's gRPC proxy offers, and what happens to a call in it before a replica has it and after.

Runs in the proxy's process. Serve makes the handlers of the methods; here they get an id, a deadline and a cost to
pass on, and what Serve itself says of a replica that is gone becomes UNAVAILABLE, at which clients try again.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2

from mezzotint.engines.errors import InvalidRequest, LoadingOff, ModelNotFound, Unavailable
from mezzotint.engines.request import Request
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.errors import REQUEST_ID
from mezzotint.server.access import AccessConfig
from mezzotint.server.convert import order_of, parse_as, parsed, request_id_of
from mezzotint.server.service import FEW_BYTES, SERVICE
from mezzotint.server.status import refusal

SERVICER = f"{__name__}:add_to_server"
"""Where Serve finds the methods, for its ``grpc_servicer_functions``."""

APPLICATION, SERVE_REQUEST_ID = "application", "request_id"  # Serve's words
ROWS, SECONDS = "mezzotint-rows", "mezzotint-seconds"
"""The metadata that goes on to router and replica: a request's work, and the seconds until its deadline."""

_OURS = frozenset((ROWS, SECONDS))
_GENERATE, _LIST, _CHECK = f"/{SERVICE}/Generate", f"/{SERVICE}/ListModels", f"/{health.SERVICE_NAME}/Check"
_NOT_HERE = (f"/{SERVICE}/LoadModel", f"/{SERVICE}/UnloadModel")
_SERVES_OWN = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNAVAILABLE)

Metadata = Sequence[tuple[str, str]]
Context = grpc.aio.ServicerContext[Any, Any]


def add_to_server(_: object, server: Any) -> None:
    """Add the contract's methods, and health's, to Serve's gRPC server."""
    server.add_generic_rpc_handlers((Door(),))


class Door(grpc.GenericRpcHandler):
    """The methods; Serve puts handlers of its own, which go to replicas, in the place of those that are named here."""

    def __init__(self) -> None:
        self._method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            _GENERATE: grpc.unary_stream_rpc_method_handler(
                _nothing, request_deserializer=_read(pb.GenerateRequest, AccessConfig().max_request_bytes)
            ),
            _LIST: grpc.unary_unary_rpc_method_handler(
                _nothing, request_deserializer=_read(pb.ListModelsRequest, FEW_BYTES)
            ),
            _CHECK: grpc.unary_unary_rpc_method_handler(
                _nothing, request_deserializer=_read(health_pb2.HealthCheckRequest, FEW_BYTES)
            ),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Return the handler of a method, if there is one."""
        method = handler_call_details.method
        if method in _NOT_HERE:
            return grpc.unary_unary_rpc_method_handler(_refuse_loading)
        serves: Any = self._method_handlers.get(method)
        if serves is None:
            return None
        if method == _GENERATE:
            return grpc.unary_stream_rpc_method_handler(
                partial(_generate, serves.unary_stream), request_deserializer=serves.request_deserializer
            )
        return grpc.unary_unary_rpc_method_handler(
            partial(_ask, serves.unary_unary), request_deserializer=serves.request_deserializer
        )


def rows_of(request: Request) -> int:
    """Return the UNet rows of a request, as far as its words tell: Heun's second evaluations are not counted.

    A row of hires fix's second walk counts as one of the first, though it is larger.

    Raises InvalidRequest where a strength leaves no step, or the prompt's parts have impossible weights.
    """
    steps = request.steps - request.start.skipped_steps(request.steps)
    steps += request.hires.num_made(request.steps) if request.hires else 0
    return steps * request.num_images * (len(request.parts) + (request.guidance > 1))


class Call:
    """A call's context as Serve sees it: with more metadata, and with a status that is gRPC's only at ``end``."""

    def __init__(self, context: Context, metadata: Metadata) -> None:
        self._context = context
        self._metadata = metadata
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Metadata = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def invocation_metadata(self) -> Metadata:
        """Return the client's metadata, without what only the door may say, and ours, which come last and count."""
        given: Any = self._context.invocation_metadata() or ()
        return (*(pair for pair in given if pair[0] not in _OURS), *self._metadata)

    def code(self) -> grpc.StatusCode | None:
        """Return the status, None as long as there is none."""
        return self._code

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status."""
        self._code = code

    def details(self) -> str:
        """Return the status's sentence."""
        return self._details

    def set_details(self, details: str) -> None:
        """Set the status's sentence."""
        self._details = details

    def trailing_metadata(self) -> Metadata:
        """Return what will follow the status."""
        return self._trailing

    def set_trailing_metadata(self, metadata: Metadata) -> None:
        """Set what will follow the status."""
        self._trailing = tuple(metadata)

    async def end(self, model: str) -> None:
        """End the call with its status; where a replica refused it, that carries the request's id."""
        code = self._code or grpc.StatusCode.OK
        if REQUEST_ID in dict(self._trailing) or code is grpc.StatusCode.OK:
            await self._finish(code, self._details, self._trailing)
        elif code is grpc.StatusCode.NOT_FOUND and model:
            await self._refuse(ModelNotFound(f"model={model!r}: is not deployed here; `serve status` lists what is"))
        elif code is grpc.StatusCode.NOT_FOUND:
            await self._refuse(Unavailable("no model is deployed yet, or there are several; try again, or name one"))
        elif code in _SERVES_OWN:
            await self._finish(grpc.StatusCode.UNAVAILABLE, "the replica was lost with the request unfinished", ())
        else:
            await self._finish(code, self._details, ())

    async def _refuse(self, error: Exception) -> None:
        refused = refusal(error, dict(self._metadata).get(SERVE_REQUEST_ID, ""))
        await self._finish(refused.code, refused.message, refused.metadata)

    async def _finish(self, code: grpc.StatusCode, details: str, metadata: Sequence[tuple[str, str | bytes]]) -> None:
        if code is not grpc.StatusCode.OK:
            await self._context.abort(code, details, tuple(metadata))
        self._context.set_trailing_metadata(tuple(metadata))


async def _generate(
    serves: Any, message: pb.GenerateRequest | InvalidRequest, context: Context
) -> AsyncIterator[bytes]:
    """Have a replica answer a request for pictures; one that is no request ends here."""
    request_id = request_id_of(message)
    await context.send_initial_metadata(((REQUEST_ID, request_id),))
    try:
        order, message = order_of(message), parsed(message)
        rows = rows_of(order.request)
    except InvalidRequest as error:
        refused = refusal(error, request_id)
        await context.abort(refused.code, refused.message, refused.metadata)
    message.request_id = request_id
    metadata = [(SERVE_REQUEST_ID, request_id), (ROWS, str(rows))]
    metadata += [(APPLICATION, order.model)] if order.model else []
    seconds = context.time_remaining()
    metadata += [] if seconds is None else [(SECONDS, repr(seconds))]
    call = Call(context, metadata)
    async for data in serves(message, call):
        if data:  # a refusal comes with a message that says nothing, since Serve passes no status on without one
            yield data
    await call.end(order.model)


async def _ask(serves: Any, message: Any, context: Context) -> bytes:
    """Have any replica answer; what is no request ends here."""
    if isinstance(message, InvalidRequest):
        refused = refusal(message, "")
        await context.abort(refused.code, refused.message, refused.metadata)
    call = Call(context, ())
    data: bytes = await serves(message, call)
    await call.end("")
    return data


async def _refuse_loading(_: bytes, context: Context) -> bytes:
    refused = refusal(LoadingOff("replicas serve what was deployed; deploy another with `mezzotint deploy-ray`"), "")
    await context.abort(refused.code, refused.message, refused.metadata)


def _read(kind: type[Message], max_bytes: int) -> Callable[[bytes], Message | InvalidRequest]:
    """Return what reads a request's bytes."""
    return partial(parse_as, kind, max_bytes=max_bytes)


async def _nothing(_: Any, __: Any) -> None:
    """Stand where Serve puts its own handler."""
