"""What goes wrong around a server, done for real: processes are killed, disks are full, nobody reads, clocks jump."""

import asyncio
import contextlib
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2

from benchmarks.start import settle
from mezzotint import Client, MezzotintClientError
from mezzotint.engines.component import Component
from mezzotint.engines.variants import FULL
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Progress
from mezzotint.server.access import AccessConfig
from mezzotint.server.config import KserveConfig
from mezzotint.server.events import Picture
from mezzotint.server.kserve.infer import _Turn
from mezzotint.server.kserve.service import SERVICE as KSERVE
from mezzotint.server.outbox import Outbox
from tests.cli.conftest import log_of, started
from tests.conftest import ROOT
from tests.server.conftest import Running, Start, eventually
from tests.server.faults import deaf_client, held, listening

DECODER = (Component.VAE_DECODER, FULL)
NUM_DEAF = 500
NUM_KILLED = 4
PICTURE: dict[str, Any] = {"steps": 60, "guidance": 4.0}


def until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_clients_that_are_killed_leave_and_nothing_of_them_stays(emoji_bundle: Path) -> None:
    with started(emoji_bundle) as (process, address), Client(address) as client:
        client.generate("a dog face", steps=2)
        _kill(listening(address, "warm-up"))
        until(lambda: "request warm-up: " in log_of(process))
        settle(process.pid)
        before = held(process.pid)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(client.generate, "a dog face", steps=40)
            for number in range(NUM_KILLED):
                _kill(listening(address, f"gone-{number}"))
                until(lambda number=number: re.search(f"request gone-{number}: .*outcome=Cancelled", log_of(process)))
            assert other.result().files
        until(lambda: held(process.pid).num_sockets <= before.num_sockets)
        until(lambda: held(process.pid).num_threads < before.num_threads + NUM_KILLED)  # gRPC's own come and go


def _kill(client: "subprocess.Popen[str]") -> None:
    client.kill()
    client.communicate()


@pytest.mark.slow
def test_clients_that_never_read_cost_little_memory_and_keep_nobody_from_being_served(emoji_bundle: Path) -> None:
    asked = {"prompt": "a cat face", "steps": 2, "guidance": 1.0, "preview_every": 1}
    with started(emoji_bundle) as (process, address), Client(address, retries=60) as client:
        client.generate("a dog face", steps=2)
        settle(process.pid)  # all row counts are prepared
        before = held(process.pid)
        with contextlib.ExitStack() as deaf:
            for number in range(NUM_DEAF):
                message = pb.GenerateRequest(request_id=f"deaf-{number}", seed=number, **asked)
                deaf.enter_context(deaf_client(address, message.SerializeToString()))
            assert client.generate("a dog face", steps=4).files
            until(lambda: len(re.findall("request deaf-.*outcome=finished", log_of(process))) > NUM_DEAF // 2)
            during = held(process.pid)
            assert client.generate("a dog face", steps=4).files
        assert during.num_sockets >= before.num_sockets + NUM_DEAF
        assert during.resident_mib - before.resident_mib < 150
        until(lambda: held(process.pid).num_sockets <= before.num_sockets)


def remembered(*kinds: type) -> list[Any]:
    """Return the objects of some kinds that there are."""
    gc.collect()
    return [found for found in gc.get_objects() if type(found) in kinds]


async def test_a_stream_that_nobody_reads_holds_a_bounded_number_of_events(start: Start) -> None:
    served = await start()
    before, sizes = remembered(Outbox), []
    with deaf_client(served.target, pb.GenerateRequest(prompt="a cat", steps=900, guidance=1.0).SerializeToString()):
        await eventually(lambda: served.core.num_open == 1)
        (outbox,) = [found for found in remembered(Outbox) if found not in before]
        while served.core.num_open:
            sizes.append(outbox.qsize())
            await asyncio.sleep(0.001)
    assert len(served.unet.calls) == 900
    assert 50 < max(sizes) < 120


@pytest.mark.parametrize("num_images", [1, 2])
async def test_pictures_of_a_client_that_never_reads_are_forgotten(start: Start, num_images: int) -> None:
    served = await start(access=AccessConfig(unread_seconds=0.2))
    before = remembered(Outbox, Picture)
    asked = pb.GenerateRequest(prompt="a cat", steps=1, guidance=1.0, num_images=num_images)
    with deaf_client(served.target, asked.SerializeToString()):
        await eventually(lambda: bool(served.engines[DECODER].calls) and not served.core.num_open)
        await eventually(lambda: all(found in before for found in remembered(Outbox, Picture)))


async def test_a_request_whose_client_never_reads_is_taken_back(start: Start) -> None:
    served = await start(access=AccessConfig(unread_seconds=0.2))
    served.unet.hold()
    with deaf_client(served.target, pb.GenerateRequest(prompt="a cat", steps=50).SerializeToString()):
        await eventually(lambda: bool(served.unet.calls))
        await eventually(lambda: not remembered(Outbox))
        served.unet.release()
        await eventually(lambda: served.core.num_open == 0)
    assert len(served.unet.calls) < 50


async def test_a_stream_of_kserve_that_is_never_read_ends_with_all_that_waits_in_it(start: Start) -> None:
    served = await start(access=AccessConfig(unread_seconds=0.3), kserve=KserveConfig())
    message = service_pb2.ModelInferRequest(model_name="fake", raw_input_contents=[b"\5\0\0\0a cat"])
    message.inputs.add(name="PROMPT", datatype="BYTES", shape=[1])
    with deaf_client(served.target, message.SerializeToString(), f"/{KSERVE}/ModelStreamInfer"):
        await eventually(lambda: bool(remembered(_Turn)) and bool(served.unet.calls) and not served.core.num_open)
        await eventually(lambda: not remembered(_Turn))


async def test_a_watcher_of_health_that_never_reads_keeps_nobody_from_stopping(start: Start) -> None:
    served = await start()
    asked = health_pb2.HealthCheckRequest().SerializeToString()
    stub = health_pb2_grpc.HealthStub(served.channel)
    hearing, unknown = (
        stub.Watch(health_pb2.HealthCheckRequest()),
        stub.Watch(health_pb2.HealthCheckRequest(service="x")),
    )
    with deaf_client(served.target, asked, "/grpc.health.v1.Health/Watch"):
        assert (await unknown.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        assert (await hearing.read()).status == health_pb2.HealthCheckResponse.SERVING
        await asyncio.sleep(0.3)  # the deaf one is watching too
        await asyncio.wait_for(served.server.set_ready(False), 5)
        assert (await hearing.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        hearing.cancel()
        unknown.cancel()
        await asyncio.wait_for(served.server.stop(1.0), 10)


@pytest.mark.slow
def test_a_killed_servers_request_is_sent_again_and_gives_the_same_bytes(emoji_bundle: Path) -> None:
    port, seen = free_port(), list[Progress]()
    with contextlib.ExitStack() as servers:
        process, address = servers.enter_context(started(emoji_bundle, port=port))

        def restart() -> None:
            process.kill()
            process.wait()
            servers.enter_context(started(emoji_bundle, port=port))

        def hear(progress: Progress) -> None:
            seen.append(progress)
            if len(seen) == 5:
                threading.Thread(target=restart).start()

        with Client(address, retries=20) as client:
            undisturbed = client.generate("a cat face", seed=42, **PICTURE)
            again = client.generate("a cat face", seed=42, on_progress=hear, **PICTURE)
    assert again.files == undisturbed.files
    assert [progress.step for progress in seen].count(1) == 2


@pytest.mark.slow
def test_a_client_that_let_the_server_choose_the_seed_learns_it_and_gets_the_same_bytes(emoji_bundle: Path) -> None:
    asked = pb.GenerateRequest(prompt="a cat face", **PICTURE)
    with started(emoji_bundle) as (process, address), grpc.insecure_channel(address) as channel:
        undisturbed = [event.image.data for event in generate(channel)(asked) if event.HasField("image")]
        lost = generate(channel)(asked)
        accepted = next(lost).accepted
        process.kill()
        with pytest.raises(grpc.RpcError) as failure:
            list(lost)
        assert failure.value.code() is grpc.StatusCode.UNAVAILABLE  # gRPC itself has not sent it again
    with started(emoji_bundle) as (_, address), Client(address) as client:
        assert client.generate("a cat face", seed=accepted.seeds[0], **PICTURE).files == undisturbed


def generate(channel: grpc.Channel) -> Callable[[pb.GenerateRequest], Any]:
    """Return the call itself, without the client."""
    return channel.unary_stream(
        "/mezzotint.v1.Mezzotint/Generate",
        request_serializer=pb.GenerateRequest.SerializeToString,
        response_deserializer=pb.GenerateEvent.FromString,
    )


@contextlib.contextmanager
def serving_into(bundle: Path, **streams: Any) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """Serve with other output streams; ready when health says so."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    command = [sys.executable, "-m", "mezzotint", "serve", bundle, "--port", str(port), "--no-cache", "--no-metrics"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, **streams)
    try:
        with grpc.insecure_channel(address) as channel:
            asked, stub = health_pb2.HealthCheckRequest(), health_pb2_grpc.HealthStub(channel)
            until(lambda: stub.Check(asked, wait_for_ready=True).status == health_pb2.HealthCheckResponse.SERVING)
        yield process, address
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
def test_sigterm_under_load_finishes_what_fits_and_ends_the_rest_as_unavailable(emoji_bundle: Path) -> None:
    with started(emoji_bundle, "--drain-seconds", "6") as (process, address), Client(address) as client:
        long = client.stream("a cat face", steps=1000, num_images=16)
        events = iter(long)
        client.generate("a dog face", steps=10)  # by now the server knows how fast it is
        with ThreadPoolExecutor(4) as pool:
            while not isinstance(next(events), Progress):
                pass
            fit = [pool.submit(client.generate, "a dog face", steps=10, seed=seed) for seed in range(4)]
            time.sleep(0.5)  # they are accepted
            process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            with pytest.raises(MezzotintClientError) as ended:
                list(events)
            seconds = time.monotonic() - begun
            assert [len(request.result().files) for request in fit] == [1] * 4
        assert ended.value.code is grpc.StatusCode.UNAVAILABLE
        assert process.wait(30) == 0
    assert seconds < 3  # at once, and not when the six seconds are over


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_server_whose_log_or_output_is_full_goes_on_serving(stream: str, emoji_bundle: Path) -> None:
    with (
        open("/dev/full", "wb") as full,
        serving_into(
            emoji_bundle, **({"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | {stream: full})
        ) as (
            process,
            address,
        ),
        Client(address) as client,
    ):
        for seed in range(3):
            assert client.generate("a cat face", steps=2, seed=seed).files
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("hours", [1, -1])
async def test_a_wall_clock_that_jumps_changes_no_deadline_and_no_timing(
    served: Running, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    served.unet.hold()
    task = asyncio.ensure_future(served.client.generate("a cat", steps=3, timeout=20))
    late = asyncio.ensure_future(served.client.generate("a dog", steps=3, timeout=1.0))
    await eventually(lambda: served.core.num_open == 2)  # gRPC reads a deadline by the wall clock, as a call comes in
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    with pytest.raises(MezzotintClientError) as expired:
        await late
    assert expired.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    served.unet.release()
    (spent,) = (await task).timings
    assert 0 < spent.total_ms < 20_000
    assert 0 <= spent.queue_ms < 20_000


def test_nothing_that_serves_reads_the_wall_clock() -> None:
    for folder in ("server", "engines", "proto"):
        for path in (ROOT / folder).rglob("*.py"):
            found = re.search(r"\btime\.time\(|datetime\.(now|utcnow)\(", path.read_text(encoding="utf-8"))
            assert found is None, f"{path}: {found}"
