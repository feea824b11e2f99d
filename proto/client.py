"""The client: a prompt in, pictures out. ``aio.py`` has the same for asyncio.

with Client("localhost:8001") as client:
    client.generate("a shark on a blue background", steps=20).images[0].save("shark.png")
"""

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
from mezzotint.proto.errors import client_error
from mezzotint.proto.messages import CHANNEL_OPTIONS, Options, build_request
from mezzotint.proto.results import Collector, Event, ModelInfo, Progress, Result, event_of, model_of

DEFAULT_TARGET = "localhost:8001"


class Stream:
    """A request's events as they come; the end says that all pictures are there."""

    def __init__(self, call: Any, target: str, request_id: str) -> None:
        self.request_id = request_id
        self._call = call
        self._target = target

    def cancel(self) -> None:
        """Take the request back: the server stops before its next step."""
        self._call.cancel()

    def __iter__(self) -> Iterator[Event]:
        try:
            for message in self._call:
                event = event_of(message)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise client_error(error, self._target, self.request_id) from None
        finally:
            self._call.cancel()  # nothing happens where it has ended


class Client:
    """A connection to a Mezzotint server; it connects at its first call.

    Args:
        target: the server's ``host:port``.
        timeout: seconds that a call may take where the call itself does not say; None is any time.
    """

    def __init__(self, target: str = DEFAULT_TARGET, *, timeout: float | None = None) -> None:
        self.target = target
        self._timeout = timeout
        self._channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.MezzotintStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; open streams are cancelled."""
        self._channel.close()

    def generate(
        self,
        prompt: str = "",
        *,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float | None = None,
        **options: Unpack[Options],
    ) -> Result:
        """Draw pictures and wait for them; ``messages.Options`` lists the options.

        Args:
            prompt: what the pictures should show.
            on_progress: hears of every step, with the previews that ``preview_every`` asks for.
            timeout: seconds until the server gives the request up.
            **options: what else the request says; what is left out takes the server's default.

        Raises:
            MezzotintClientError: there is no server, or it refused the request or failed.
        """
        stream = self.stream(prompt, timeout=timeout, **options)
        collector = Collector(stream.request_id)
        for event in stream:
            if on_progress is not None and isinstance(event, Progress):
                on_progress(event)
            collector.add(event)
        return collector.result()

    def stream(self, prompt: str = "", *, timeout: float | None = None, **options: Unpack[Options]) -> Stream:
        """Start a request and return its events as they come; takes what ``generate`` takes."""
        message = build_request(prompt, options)
        call = self._stub.Generate(message, timeout=self._timeout if timeout is None else timeout)
        return Stream(call, self.target, message.request_id)

    def models(self) -> list[ModelInfo]:
        """Return the bundles that the server serves. Raises MezzotintClientError."""
        try:
            response = self._stub.ListModels(pb.ListModelsRequest(), timeout=self._timeout)
        except grpc.RpcError as error:
            raise client_error(error, self.target) from None
        return [model_of(model) for model in response.models]
