"""Bearer tokens on the wire: every call but those for health needs one that the server knows."""

import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio

from mezzotint.engines.errors import Unauthenticated
from mezzotint.server.audit import log_refusal
from mezzotint.server.client_identity import client_of, note_token
from mezzotint.server.observer import Answer, Observer
from mezzotint.server.reloaded import Reloaded
from mezzotint.server.status import refusal
from mezzotint.server.tokens import read_tokens

_HEADER = "authorization"
_SCHEME = "bearer "
_OPEN = "/grpc.health.v1.Health/"  # load balancers ask without a token, and learn nothing but whether it serves


class Authentication(grpc.aio.ServerInterceptor):
    """Lets calls in by their token, before anything of their request is read.

    Args:
        path: the tokens file; read again when it changes.
        observer: hears of the calls that are refused here.

    Raises:
        CredentialsError: it cannot be used.
    """

    def __init__(self, path: Path, observer: Observer | None = None) -> None:
        self._observer = observer or Observer()
        self._tokens = Reloaded((path,), lambda: read_tokens(path))

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """Hand the call on, or a handler that refuses it."""
        if not handler_call_details.method.startswith(_OPEN):
            try:
                note_token(*self._known(handler_call_details.invocation_metadata))
            except Unauthenticated as error:
                return _refusing(error, self._observer)
        return await continuation(handler_call_details)

    def _known(self, metadata: Iterable[tuple[str, str | bytes]]) -> tuple[str, bool]:
        """Return whose token came with a call, and whether it is an operator's. Raises Unauthenticated."""
        given = [value for key, value in metadata if key == _HEADER and isinstance(value, str)]
        if len(given) != 1 or not given[0].lower().startswith(_SCHEME):
            raise Unauthenticated(
                f"this server asks for a token; send `{_HEADER}: Bearer TOKEN`, or set MEZZOTINT_TOKEN for our clients"
            )
        tokens, token = self._tokens.get(), given[0][len(_SCHEME) :].strip()
        name = tokens.name_of(token)
        if name is None:
            raise Unauthenticated(
                "the token is not known here; ask the server's keeper for one, which `mezzotint token NAME` makes"
            )
        return name, tokens.is_operator(token)


def _refusing(error: Unauthenticated, observer: Observer) -> "grpc.RpcMethodHandler[Any, Any]":
    """Return a handler that fits calls of any kind, since it reads no request."""

    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        request_id = uuid.uuid4().hex
        refused = refusal(error, request_id)
        log_refusal(request_id, client_of(context), refused.code, error)
        observer.answered(Answer(request_id, code=refused.code.name))
        await context.abort(refused.code, refused.message, refused.metadata)

    return grpc.stream_stream_rpc_method_handler(refuse)
