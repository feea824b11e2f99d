"""Serve's gRPC proxy without Serve: our door over a real socket, and behind it replicas in this process.

What Serve itself does to a call is done here in its place; the tests of a real cluster are in ``test_cluster.py``.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
import grpc.aio

from mezzotint.server.ray.door import Call, Door
from mezzotint.server.ray.replica import Replica


class Context:
    """A call's context as Serve carries it to a replica and back with each message."""

    def __init__(self, call: Call) -> None:
        self._metadata = list(call.invocation_metadata())
        self._peer, self._auth = call.peer(), call.auth_context()
        self._code, self._details = call.code(), call.details()
        self._trailing: list[tuple[str, Any]] = []

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return self._metadata

    def peer(self) -> str:
        return str(self._peer)

    def auth_context(self) -> dict[str, Any]:
        return dict(self._auth)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: list[tuple[str, Any]]) -> None:
        self._trailing = [("request_id", "serve's own"), *metadata]

    def put_on(self, call: Call) -> None:
        if self._code:
            call.set_code(self._code)
        if self._details:
            call.set_details(self._details)
        call.set_trailing_metadata(self._trailing)


class Lost(Exception):
    """What Serve hears of a replica whose process is gone."""


class Proxy:
    """Serve's part: every call goes to the one replica, or to nobody."""

    def __init__(self, replica: Replica | None) -> None:
        self.replica = replica
        self.lose_after: int | None = None  # messages of the next request, after which its replica is gone
        self.seen: list[dict[str, Any]] = []

    async def unary_stream(self, method: str, message: Any, call: Call) -> AsyncIterator[bytes]:
        if self.replica is None:
            call.set_code(grpc.StatusCode.NOT_FOUND)
            return
        context, num_sent = Context(call), 0
        self.seen.append(dict(context.invocation_metadata()))
        try:
            async for event in getattr(self.replica, method)(message, grpc_context=context):
                if num_sent == self.lose_after:
                    self.lose_after = None  # by now another has taken its place
                    raise Lost("The actor died unexpectedly before finishing this task.")
                context.put_on(call)
                yield event.SerializeToString()
                num_sent += 1
            code, details = grpc.StatusCode.OK, ""
        except Exception as error:
            code, details = grpc.StatusCode.INTERNAL, str(error)
        call.set_code(call.code() or code)
        call.set_details(call.details() or details)

    async def unary_unary(self, method: str, message: Any, call: Call) -> bytes:
        if self.replica is None:
            call.set_code(grpc.StatusCode.NOT_FOUND)
            return b""
        takes_context = method != "Check"
        context = Context(call)
        answer = await getattr(self.replica, method)(message, **({"grpc_context": context} if takes_context else {}))
        context.put_on(call)
        return bytes(answer.SerializeToString())


@asynccontextmanager
async def listening(proxy: Proxy) -> AsyncIterator[str]:
    """Serve our methods as Serve does: its own handlers stand in the place of those that the door names."""
    door = Door()
    door._method_handlers = {name: _served(proxy, name, handler) for name, handler in door._method_handlers.items()}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((door,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(1.0)


def _served(proxy: Proxy, name: str, handler: Any) -> Any:
    method = name.rpartition("/")[2]
    return handler._replace(
        unary_unary=partial(proxy.unary_unary, method), unary_stream=partial(proxy.unary_stream, method)
    )
