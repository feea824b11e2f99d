"""The client for asyncio: the same names as in ``client.py``, to be awaited.

async with AsyncClient("localhost:8001") as client:
    result = await client.generate("a shark on a blue background", steps=20)
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self, Unpack

import grpc
import grpc.aio

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
from mezzotint.proto.client import DEFAULT_TARGET
from mezzotint.proto.errors import cancelled, client_error
from mezzotint.proto.messages import CHANNEL_OPTIONS, Options, build_request
from mezzotint.proto.results import Collector, Event, ModelInfo, Progress, Result, event_of, model_of


class AsyncStream:
    """A request's events as they come; the end says that all pictures are there."""

    def __init__(self, call: Any, target: str, request_id: str) -> None:
        self.request_id = request_id
        self._call = call
        self._target = target
        self._cancelled = False

    def cancel(self) -> None:
        """Take the request back: the server stops before its next step."""
        self._cancelled = True
        self._call.cancel()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                event = event_of(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise client_error(error, self._target, self.request_id) from None
        except asyncio.CancelledError:
            if not self._cancelled:  # somebody cancelled the task
                raise
            raise cancelled(self.request_id) from None
        finally:
            self._call.cancel()  # nothing happens where it has ended


class AsyncClient:
    """A connection to a Mezzotint server; it belongs to the event loop that it is made in.

    Args:
        target: the server's ``host:port``.
        timeout: seconds that a call may take where the call itself does not say; None is any time.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout: float | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.MezzotintStub(self._channel)  # type: ignore[no-untyped-call]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; open streams are cancelled."""
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
        call = self._stub.Generate(message, timeout=self._timeout if timeout is None else timeout)
        return AsyncStream(call, self.target, message.request_id)

    async def models(self) -> list[ModelInfo]:
        """Return the bundles that the server serves. Raises MezzotintClientError."""
        try:
            response = await self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise client_error(error, self.target) from None
        return [model_of(model) for model in response.models]
