"""The client: a prompt in, pictures out. ``aio.py`` has the same for asyncio.

with Client("localhost:8001") as client:
    client.generate("a shark on a blue background", steps=20).images[0].save("shark.png")
"""

import contextlib
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
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

DEFAULT_TARGET = "localhost:8001"


class Stream:
    """A request's events as they come; the end says that all pictures are there.

    A request that had to be sent again begins anew with ``Accepted``; pictures come once.
    """

    def __init__(self, start: Callable[[float | None], Any], target: str, request_id: str, attempts: Attempts) -> None:
        self.request_id = request_id
        self._start = start
        self._target = target
        self._attempts = attempts
        self._cancelled = threading.Event()
        self._call = start(attempts.timeout)

    def cancel(self) -> None:
        """Take the request back: the server stops before its next step."""
        self._cancelled.set()
        self._call.cancel()

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                with contextlib.closing(self._events()) as events:
                    for event in events:
                        if self._attempts.is_new(event):
                            yield event
                return
            except MezzotintClientError as error:
                if self._cancelled.wait(self._attempts.wait_after(error)):
                    raise cancelled(self.request_id) from None
            self._call = self._start(self._attempts.timeout)
            if self._cancelled.is_set():  # by another thread, which may have had the call before
                self._call.cancel()

    def _events(self) -> Generator[Event, None, None]:
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
        retries: how often a request is sent again where the server is away, is lost while it paints, or says when it
            has room; under the same id and seed, after longer and longer waits or as long as the server says.
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
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        credentials, self._metadata = connection(target, **security)
        if credentials is None:
            self._channel = grpc.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        self._stub = pb_grpc.MezzotintStub(self._channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; open streams are cancelled, and say so."""
        for stream in tuple(self._streams):
            stream.cancel()
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
        attempts = Attempts(self._retries, self._timeout if timeout is None else timeout)
        stream = Stream(partial(self._begin, message), self.target, message.request_id, attempts)
        self._streams.add(stream)
        return stream

    def _begin(self, message: pb.GenerateRequest, timeout: float | None) -> Any:
        try:
            return self._stub.Generate(message, timeout=timeout, metadata=self._metadata)
        except ValueError:  # grpc's word for a closed channel
            raise closed(self.target) from None

    def models(self) -> list[ModelInfo]:
        """Return the bundles that the server serves. Raises MezzotintClientError."""
        response = self._call(self._stub.ListModels, pb.ListModelsRequest(), self._timeout)
        return [model_of(model) for model in response.models]

    def load_model(self, bundle: str, *, timeout: float | None = None) -> LoadedModel:
        """Have the server load a bundle of its model repository, and wait until it is served.

        Where one of its name is served, it takes the place of that, without any request lost.

        Args:
            bundle: the name of the bundle's folder in the repository.
            timeout: seconds to wait; the server loads it all the same.

        Raises:
            MezzotintClientError: there is no server, it has no such bundle or no room for it, or it may load none.
        """
        return loaded_of(self._call(self._stub.LoadModel, pb.LoadModelRequest(bundle=bundle), timeout))

    def unload_model(self, name: str, *, timeout: float | None = None) -> None:
        """Have the server unload a model, and wait until it has finished what it accepted and its memory is given back.

        Raises:
            MezzotintClientError: there is no server, or no model of that name, or it may unload none.
        """
        self._call(self._stub.UnloadModel, pb.UnloadModelRequest(name=name), timeout)

    def _call(self, method: Any, message: Any, timeout: float | None) -> Any:
        try:
            return method(message, timeout=self._timeout if timeout is None else timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise client_error(error, self.target) from None
        except ValueError:
            raise closed(self.target) from None
