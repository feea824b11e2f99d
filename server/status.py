"""The one table from error classes to gRPC status, and the lookup along a class's ancestors."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import grpc
from google.rpc.error_details_pb2 import RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from mezzotint.engines import errors
from mezzotint.proto.errors import PUSHBACK_MS, REQUEST_ID, RETRY_AFTER_MS
from mezzotint.server.logs import about

logger = logging.getLogger(__name__)

CODES: Mapping[type[BaseException], grpc.StatusCode] = MappingProxyType(
    {
        errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
        errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
        errors.ShapeNotCompiled: grpc.StatusCode.FAILED_PRECONDITION,
        errors.RequestIdTaken: grpc.StatusCode.ALREADY_EXISTS,
        errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
        errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
        errors.BundleError: grpc.StatusCode.FAILED_PRECONDITION,
        errors.DeviceNotFound: grpc.StatusCode.FAILED_PRECONDITION,
        errors.LoadingOff: grpc.StatusCode.FAILED_PRECONDITION,
        errors.OverMemoryBudget: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.NotTaken: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
        errors.Cancelled: grpc.StatusCode.CANCELLED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
        errors.FlaggedPicture: grpc.StatusCode.PERMISSION_DENIED,
        errors.EngineFailed: grpc.StatusCode.INTERNAL,
    }
)

DETAILS = "grpc-status-details-bin"
_MAX_MESSAGE_BYTES = 2048  # a status goes in headers, three bytes for each that is not ASCII, and clients take 8 KiB


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request's failure goes over the wire; ``metadata`` is trailing."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str | bytes], ...]


def refusal(error: Exception, request_id: str) -> Refusal:
    """Return the status of an error; one that is not in the table is INTERNAL, and its traceback goes to the log."""
    metadata: list[tuple[str, str | bytes]] = [(REQUEST_ID, request_id)]
    if isinstance(error, errors.QueueFull | errors.OverMemoryBudget) and error.retry_after_ms is not None:
        metadata += _retry_hint(error, error.retry_after_ms, request_id)
    for ancestor in type(error).__mro__:
        if ancestor in CODES:
            return Refusal(CODES[ancestor], _short(str(error)), tuple(metadata))
    logger.error("request %s failed", request_id, exc_info=error, extra=about(request_id))
    message = f"request {request_id}: the server failed; its log says why under that id"
    return Refusal(grpc.StatusCode.INTERNAL, message, tuple(metadata))


def _short(message: str) -> str:
    """Cut a message that repeats too much of its request."""
    data = message.encode("utf-8", "backslashreplace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return message
    return data[:_MAX_MESSAGE_BYTES].decode("utf-8", "ignore") + " …"


def _retry_hint(error: Exception, retry_after_ms: int, request_id: str) -> list[tuple[str, str | bytes]]:
    """Return when to try again, for our clients, for gRPC's own retries, and as the standard details (google.rpc)."""
    milliseconds = str(retry_after_ms)
    retry = RetryInfo()
    retry.retry_delay.FromMilliseconds(retry_after_ms)
    status = Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], message=str(error))
    for detail in (retry, RequestInfo(request_id=request_id)):
        status.details.add().Pack(detail)
    return [(RETRY_AFTER_MS, milliseconds), (PUSHBACK_MS, milliseconds), (DETAILS, status.SerializeToString())]
