"""The one error of the client. Imports grpc alone."""

import grpc

REQUEST_ID = "request-id"
"""The metadata that says a request's id, before its events and where it is refused."""

RETRY_AFTER_MS = "retry-after-ms"
"""The trailing metadata that says when to try again."""

PUSHBACK_MS = "grpc-retry-pushback-ms"
"""gRPC's own word, which servers in front of ours send too; below 0 is never."""

_NO_SERVER = "no Mezzotint server answers there; start one with `mezzotint serve BUNDLE`"
_STRANGER = "its certificate is out of date, or not vouched for by the authority that was given; check the CA file"
_NO_HOST = "no name server knows that host; check its name"
_NO_TLS = "no TLS is spoken there; connect without, or serve with --tls-cert and --tls-key"
_OTHER_HOST = "its certificate is for another host; connect to the name that it was made for"
_CLOSED = "the connection was closed at once; a server with TLS may want a CA file of its clients, or a certificate"
_NEVER_WAS = "failed to connect"
_NO_CONNECTION = {  # what gRPC says of a connection that never was, and what that means
    "CERTIFICATE_VERIFY_FAILED": _STRANGER,
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "Hostname Verification": _OTHER_HOST,
    "ocket closed": _CLOSED,
    "onnection reset": _CLOSED,
}


class MezzotintClientError(Exception):
    """A call that failed; its text is one sentence.

    Attributes:
        code: gRPC's status.
        message: the sentence.
        request_id: the request's name in the server's log; empty for calls without one.
        retry_after_ms: when to try again, where the server says so; below 0 is never.
        details: gRPC's own words, where the sentence is ours.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        request_id: str = "",
        retry_after_ms: int | None = None,
        details: str = "",
    ) -> None:
        super().__init__(message)
        self.details = details
        self.code = code
        self.message = message
        self.request_id = request_id
        self.retry_after_ms = retry_after_ms


def client_error(error: grpc.RpcError, target: str, request_id: str = "") -> MezzotintClientError:
    """Turn gRPC's error of a call to ``target`` into ours."""
    metadata: dict[str, str | bytes] = dict(error.trailing_metadata() or ())  # type: ignore[arg-type]
    code, message = error.code(), error.details() or "the call failed without a word"
    ours = REQUEST_ID in metadata
    begun = REQUEST_ID in dict(error.initial_metadata() or ())  # type: ignore[attr-defined]
    if code is grpc.StatusCode.UNAVAILABLE and begun and not ours:
        message = (
            f"{target}: the server was lost with the request unfinished; send it again, the same seed gives the same "
            "picture"
        )
    elif code is grpc.StatusCode.UNAVAILABLE and not ours and message.startswith("DNS resolution failed"):
        message = f"{target}: {_NO_HOST}"
    elif code is grpc.StatusCode.UNAVAILABLE and not ours:
        meaning = (means for said, means in _NO_CONNECTION.items() if _NEVER_WAS in message and said in message)
        message = f"{target}: {next(meaning, _NO_SERVER)}"
    elif code is grpc.StatusCode.DEADLINE_EXCEEDED and not ours:
        message = f"{target}: the deadline passed before the request was done; allow it a longer timeout"
    elif code is grpc.StatusCode.CANCELLED and not ours:
        return cancelled(request_id)
    retry_after = metadata.get(RETRY_AFTER_MS) or metadata.get(PUSHBACK_MS)
    return MezzotintClientError(
        code,
        message,
        request_id=request_id,
        retry_after_ms=int(retry_after) if retry_after else None,
        details=error.details() or "",
    )


def cancelled(request_id: str) -> MezzotintClientError:
    """Return the error of a request that this client took back."""
    return MezzotintClientError(grpc.StatusCode.CANCELLED, "the request was cancelled", request_id=request_id)


def closed(target: str) -> MezzotintClientError:
    """Return the error of a call by a client that was closed."""
    return MezzotintClientError(grpc.StatusCode.CANCELLED, f"{target}: the client was closed; make another one")


def invalid(message: str) -> MezzotintClientError:
    """Return the error of what cannot be sent."""
    return MezzotintClientError(grpc.StatusCode.INVALID_ARGUMENT, message)
