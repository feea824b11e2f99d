"""The client for asyncio: the same names as in ``client.py``, to be awaited.

async with AsyncClient("localhost:8001") as client:
    result = await client.generate("a shark on a blue background", steps=20)
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
from mezzotint.proto.client import DEFAULT_TARGET
from mezzotint.proto.connection import Security, connection
from mezzotint.proto.errors import MezzotintClientError, cancelled, client_error, closed
from mezzotint.proto.messages import CHANNEL_OPTIONS, Options, build_request
from mezzotint.proto.results import (
    Collector,
    Event,
    LoadedModel,
    ModelInfo,
    Progress,
    Result,
    event_of,
    loaded_of,
    model_of,
)
from mezzotint.proto.retries import Attempts


class AsyncStream:
    """A request's events as they come, as ``client.Stream``'s."""

    def __init__(self, start: Callable[[float | None], Any], target: str, request_id: str, attempts: Attempts) -> None:
        self.request_id = request_id
        self._start = start
        self._target = target
        self._attempts = attempts
        self._cancelled = asyncio.Event()
        self._call = start(attempts.timeout)

    def cancel(self) -> None:
        """Take the request back: the server stops before its next step."""
        self._cancelled.set()
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        while True:
            try:
                async with contextlib.aclosing(self._events()) as events:
                    async for event in events:
                        if self._attempts.is_new(event):
                            yield event
                return
            except MezzotintClientError as error:
                await self._wait(self._attempts.wait_after(error))
            self._call = self._start(self._attempts.timeout)

    async def _wait(self, seconds: float) -> None:
        if self._cancelled.is_set():
            raise cancelled(self.request_id)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cancelled.wait(), seconds)
            raise cancelled(self.request_id)

    async def _events(self) -> AsyncGenerator[Event, None]:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                event = event_of(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise client_error(error, self._target, self.request_id) from None
        except asyncio.CancelledError:
            if _is_the_tasks() or not self._cancelled.is_set():
                raise
            raise cancelled(self.request_id) from None
        finally:
            self._call.cancel()  # nothing happens where it has ended


def _is_the_tasks() -> bool:
    """Return whether a CancelledError is this task's, which somebody cancelled, and not its call's."""
    task = asyncio.current_task()
    return bool(task and task.cancelling())


class AsyncClient:
    """A connection to a Mezzotint server; it belongs to the event loop that it is made in.

    Args:
        target: the server's ``host:port``.
        timeout: seconds that a call may take where the call itself does not say; None is any time.
        retries: how often a request is sent again, as by ``Client``.
        **security: TLS and a token; ``connection.Security`` lists them.

    Raises:
        MezzotintClientError: what is said of TLS and the token cannot be used.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        timeout: float | None = None,
        retries: int = 0,
        **security: Unpack[Security],
    ) -> None:
        self.target = target
        self._timeout = timeout
        self._retries = retries
        self._is_closed = False
        self._streams: weakref.WeakSet[AsyncStream] = weakref.WeakSet()
        credentials, self._metadata = connection(target, **security)
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.MezzotintStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; open streams are cancelled, and say so."""
        self._is_closed = True
        for stream in tuple(self._streams):
            stream.cancel()
        await self._channel.close()

    async def generate(
        self,
        prompt: str = "",
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Draw pictures and wait for them: ``Client.generate`` for asyncio. Raises MezzotintClientError."""
        stream = self.stream(prompt, timeout=timeout, **options)
        collector = Collector(stream.request_id)
        async for event in stream:
            if on_progress is not None and isinstance(event, Progress):
                on_progress(event)
            collector.add(event)
        return collector.result()

    def stream(self, prompt: str = "", *, timeout: float | None = None, **options: Unpack[Options]) -> AsyncStream:
        """Start a request and return its events as they come; takes what ``generate`` takes."""
        message = build_request(prompt, options)
        attempts = Attempts(self._retries, self._timeout if timeout is None else timeout)
        stream = AsyncStream(partial(self._begin, message), self.target, message.request_id, attempts)
        self._streams.add(stream)
        return stream

    def _begin(self, message: pb.GenerateRequest, timeout: float | None) -> Any:
        if self._is_closed:
            raise closed(self.target)
        return self._stub.Generate(message, timeout=timeout, metadata=self._metadata)

    async def models(self) -> list[ModelInfo]:
        """Return the bundles that the server serves. Raises MezzotintClientError."""
        response = await self._call(self._stub.ListModels, pb.ListModelsRequest(), self._timeout)
        return [model_of(model) for model in response.models]

    async def load_model(self, bundle: str, *, timeout: float | None = None) -> LoadedModel:
        """Have a bundle loaded: ``Client.load_model`` for asyncio. Raises MezzotintClientError."""
        return loaded_of(await self._call(self._stub.LoadModel, pb.LoadModelRequest(bundle=bundle), timeout))

    async def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Have a model unloaded: ``Client.unload_model`` for asyncio. Raises MezzotintClientError."""
        await self._call(self._stub.UnloadModel, pb.UnloadModelRequest(name=name), timeout)

    async def _call(self, method: Any, message: Any, timeout: float | None) -> Any:
        if self._is_closed:
            raise closed(self.target)
        try:
            return await method(message, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise client_error(error, self.target) from None
        except asyncio.CancelledError:
            if _is_the_tasks() or not self._is_closed:
                raise
            raise closed(self.target) from None
