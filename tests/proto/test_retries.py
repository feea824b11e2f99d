"""A request that is sent again: when, how often, and what its caller hears of it."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from mezzotint import AsyncClient, Client, MezzotintClientError
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Accepted, Event, Picture, Progress
from mezzotint.proto.retries import Attempts
from tests.fakes import FakeClock

ACCEPTED = pb.GenerateEvent(accepted=pb.Accepted(request_id="mine", seeds=[5, 6], steps=1))
PROGRESS = pb.GenerateEvent(progress=pb.Progress(image_index=0, step=1, steps=1))
FIRST, SECOND = (pb.GenerateEvent(image=pb.ImageResult(image_index=i, seed=5 + i, data=b"x")) for i in (0, 1))
LOST = (grpc.StatusCode.UNAVAILABLE, ())


def full(pushback: str) -> tuple[grpc.StatusCode, Any]:
    return grpc.StatusCode.RESOURCE_EXHAUSTED, (("grpc-retry-pushback-ms", pushback),)


@dataclass
class Script:
    """A server that says what it is told to: for each attempt events, then None for the end, or how to fail."""

    attempts: list[Sequence[Any]] = field(default_factory=list)
    requests: list[pb.GenerateRequest] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    target: str = ""

    def generate(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> Iterator[pb.GenerateEvent]:
        self.requests.append(request)
        self.times.append(time.monotonic())
        *events, ending = self.attempts[len(self.requests) - 1]
        yield from events
        if ending is not None:
            code, trailers = ending
            context.set_trailing_metadata(trailers)
            context.abort(code, "as told")


@pytest.fixture
def script() -> Iterator[Script]:
    found = Script()
    handler = grpc.unary_stream_rpc_method_handler(
        found.generate, pb.GenerateRequest.FromString, pb.GenerateEvent.SerializeToString
    )
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("mezzotint.v1.Mezzotint", {"Generate": handler}),)
    )
    found.target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None).wait()


def ask(target: str, **options: Any) -> list[Event]:
    with Client(target, **options) as client:
        return list(client.stream("a cat", num_images=2))


def ask_async(target: str, **options: Any) -> list[Event]:
    async def collect() -> list[Event]:
        async with AsyncClient(target, **options) as client:
            return [event async for event in client.stream("a cat", num_images=2)]

    return asyncio.run(collect())


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_the_same_request_goes_out_again_and_pictures_come_once(ask: Any, script: Script) -> None:
    script.attempts = [(ACCEPTED, PROGRESS, FIRST, LOST), (ACCEPTED, PROGRESS, FIRST, SECOND, None)]
    events = ask(script.target, retries=1)
    assert [type(event) for event in events] == [Accepted, Progress, Picture, Accepted, Progress, Picture]
    assert [event.image_index for event in events if isinstance(event, Picture)] == [0, 1]
    one, other = script.requests
    assert one == other
    assert one.request_id
    assert one.HasField("seed")


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_a_full_queues_word_when_to_come_back_is_kept(ask: Any, script: Script) -> None:
    script.attempts = [(full("300"),), (ACCEPTED, FIRST, SECOND, None)]
    assert len(ask(script.target, retries=1)) == 3
    assert 0.3 <= script.times[1] - script.times[0] < 2


@pytest.mark.parametrize("ask", [ask, ask_async])
@pytest.mark.parametrize(
    "ending",
    [
        full("-1"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ()),
        (grpc.StatusCode.INTERNAL, ()),
        (grpc.StatusCode.CANCELLED, ()),
    ],
)
def test_what_would_not_change_is_not_asked_again(ask: Any, ending: Any, script: Script) -> None:
    script.attempts = [(ACCEPTED, ending)]
    with pytest.raises(MezzotintClientError):
        ask(script.target, retries=3)
    assert len(script.requests) == 1


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_retries_are_bounded_and_none_by_default(ask: Any, script: Script) -> None:
    script.attempts = [(full("1"),)] * 9
    for options, expected in (({}, 1), ({"retries": 2}, 3)):
        script.requests.clear()
        with pytest.raises(MezzotintClientError) as failure:
            ask(script.target, **options)
        assert failure.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(script.requests) == expected


@pytest.mark.parametrize("ask", [ask, ask_async])
def test_a_timeout_is_that_of_all_attempts(ask: Any, script: Script) -> None:
    script.attempts = [(full("2000"),)] * 9
    begun = time.monotonic()
    with pytest.raises(MezzotintClientError):
        ask(script.target, retries=9, timeout=1.0)
    assert time.monotonic() - begun < 1.0
    assert len(script.requests) == 1


def test_a_request_that_waits_can_be_taken_back(script: Script) -> None:
    script.attempts = [(full("60000"),)] * 2
    with Client(script.target, retries=1) as client:
        stream = client.stream("a cat")
        threading.Timer(0.3, stream.cancel).start()
        with pytest.raises(MezzotintClientError, match="the request was cancelled"):
            list(stream)


async def test_a_request_that_waits_can_be_taken_back_in_asyncio(script: Script) -> None:
    script.attempts = [(full("60000"),)] * 2
    async with AsyncClient(script.target, retries=1) as client:
        stream = client.stream("a cat")
        asyncio.get_running_loop().call_later(0.3, stream.cancel)
        with pytest.raises(MezzotintClientError, match="the request was cancelled"):
            async for _ in stream:
                pass


def test_a_client_that_is_closed_ends_the_wait_of_its_streams(script: Script) -> None:
    script.attempts = [(full("60000"),)] * 2
    client = Client(script.target, retries=1)
    stream = client.stream("a cat")
    threading.Timer(0.3, client.close).start()
    with pytest.raises(MezzotintClientError, match="the request was cancelled"):
        list(stream)
    for call in (client.models, lambda: list(client.stream("a cat"))):
        with pytest.raises(MezzotintClientError, match="the client was closed; make another one"):
            call()


async def test_a_client_that_is_closed_ends_the_wait_of_its_streams_in_asyncio(script: Script) -> None:
    script.attempts = [(full("60000"),)] * 2
    client = AsyncClient(script.target, retries=1)
    stream = client.stream("a cat")
    closing = asyncio.create_task(close_soon(client))
    with pytest.raises(MezzotintClientError, match="the request was cancelled"):
        async for _ in stream:
            pass
    await closing
    for call in (client.models(), client.generate("a cat")):
        with pytest.raises(MezzotintClientError, match="the client was closed; make another one"):
            await call


async def close_soon(client: AsyncClient) -> None:
    await asyncio.sleep(0.3)
    await client.close()


async def test_a_call_that_waits_hears_that_its_client_was_closed() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        client = AsyncClient(f"127.0.0.1:{silent.getsockname()[1]}")
        closing = asyncio.create_task(close_soon(client))
        with pytest.raises(MezzotintClientError, match="the client was closed"):
            await client.models()
        await closing


async def test_a_request_that_need_not_wait_can_be_taken_back_too(script: Script) -> None:
    script.attempts = [(full("0"),)] * 2
    async with AsyncClient(script.target, retries=1) as client:
        stream = client.stream("a cat")
        events = aiter(stream)
        stream._cancelled.set()  # between an attempt's end and the next one's begin
        with pytest.raises(MezzotintClientError, match="the request was cancelled"):
            await anext(events)
    assert len(script.requests) == 1


def test_fewer_than_no_retries_are_refused(script: Script) -> None:
    with pytest.raises(MezzotintClientError, match="retries=-1: must be 0 or more"):
        ask(script.target, retries=-1)


def test_a_server_that_is_away_is_waited_for() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
    begun = time.monotonic()
    with pytest.raises(MezzotintClientError, match="no Mezzotint server answers there"):
        ask(target, retries=1)
    assert time.monotonic() - begun >= 0.4


def test_waits_double_up_to_a_limit_and_differ_by_a_share() -> None:
    lost = MezzotintClientError(grpc.StatusCode.UNAVAILABLE, "away")
    longest, shortest = (Attempts(9, None, clock=FakeClock(), draw=draw) for draw in (max, min))
    assert [longest.wait_after(lost) for _ in range(7)] == pytest.approx([0.6, 1.2, 2.4, 4.8, 9.6, 12, 12])
    assert [shortest.wait_after(lost) for _ in range(7)] == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, 8, 8])


def test_waits_that_a_server_asks_for_are_kept_and_double_where_it_is_still_full() -> None:
    def waits(asked: int, draw: Any) -> list[float]:
        attempts = Attempts(6, None, clock=FakeClock(), draw=draw)
        error = MezzotintClientError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=asked)
        return [attempts.wait_after(error) for _ in range(6)]

    assert waits(500, min) == pytest.approx([0.5, 1, 2, 4, 8, 10])
    assert waits(500, max) == pytest.approx([0.6, 1.2, 2.4, 4.8, 9.6, 12])
    assert waits(60_000, min) == pytest.approx([60] * 6), "the server's own word is not shortened"
    assert waits(0, max) == [0] * 6


def test_many_retries_are_counted_and_waits_stay_bounded() -> None:
    attempts = Attempts(5000, None, clock=FakeClock(), draw=max)
    full_queue = MezzotintClientError(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", retry_after_ms=88)
    assert max(attempts.wait_after(full_queue) for _ in range(5000)) == pytest.approx(12)
    with pytest.raises(MezzotintClientError):
        attempts.wait_after(full_queue)


def test_the_next_attempt_gets_what_is_left_of_the_timeout() -> None:
    clock = FakeClock()
    attempts = Attempts(3, 10.0, clock=clock)
    clock.now = 4.0
    assert attempts.timeout == 6.0
    clock.now = 11.0
    assert attempts.timeout == 0.0
