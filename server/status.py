"""The one table from error classes to gRPC status, and the lookup along a class's ancestors."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import grpc

from mezzotint.engines import errors

logger = logging.getLogger(__name__)

CODES: Mapping[type[BaseException], grpc.StatusCode] = MappingProxyType(
    {
        errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
        errors.ModelNotFound: grpc.StatusCode.NOT_FOUND,
        errors.ShapeNotCompiled: grpc.StatusCode.FAILED_PRECONDITION,
        errors.QueueFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
        errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
        errors.Cancelled: grpc.StatusCode.CANCELLED,
        errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
        errors.EngineFailed: grpc.StatusCode.INTERNAL,
    }
)

REQUEST_ID = "request-id"
RETRY_AFTER_MS = "retry-after-ms"


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request's failure goes over the wire; ``metadata`` is trailing."""

    code: grpc.StatusCode
    message: str
    metadata: tuple[tuple[str, str], ...]


def refusal(error: Exception, request_id: str) -> Refusal:
    """Return the status of an error; one that is not in the table is INTERNAL, and its traceback goes to the log."""
    metadata = [(REQUEST_ID, request_id)]
    if isinstance(error, errors.QueueFull):
        metadata.append((RETRY_AFTER_MS, str(error.retry_after_ms)))
    for ancestor in type(error).__mro__:
        if ancestor in CODES:
            return Refusal(CODES[ancestor], str(error), tuple(metadata))
    logger.error("request %s failed", request_id, exc_info=error)
    message = f"request {request_id}: the server failed; its log says why under that id"
    return Refusal(grpc.StatusCode.INTERNAL, message, tuple(metadata))
