"""A real Ray cluster on this machine: two replicas of half a core each behind Serve's gRPC proxy."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from benchmarks.cluster import Cluster, cluster
from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.manifest import MANIFEST
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
from mezzotint.proto.results import Accepted, Picture, Progress
from mezzotint.server.app import Server, load_core
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig
from mezzotint.server.ray.context import REPLICA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REQUESTS = tuple(
    {"prompt": prompt, "steps": steps, "guidance": 4.0, "seed": seed, "sampler": sampler}
    for seed, (prompt, steps, sampler) in enumerate(
        [("a shark", 10, "ddim"), ("a cat face", 4, "euler"), ("a tree", 6, "heun"), ("a fox", 8, "euler_a")], start=1
    )
)


@pytest.fixture(scope="module")
def replicas(emoji_bundle: Path) -> Iterator[Cluster]:
    options = ("--replicas", "2", "--num-cpus", "0.5", "--max-queue-size", "16", "--drain-seconds", "20")
    with cluster(emoji_bundle, *options) as made:
        yield made


@pytest.fixture
async def client(replicas: Cluster) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(replicas.target, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def expected(emoji_bundle: Path) -> list[bytes]:
    """What our own server paints of the requests."""

    async def paint() -> list[bytes]:
        core = await asyncio.to_thread(load_core, emoji_bundle, LoadOptions(devices={}, cache=False), CoreConfig())
        server = Server(Catalog([core.model.name]))
        server.catalog.add(core)
        port = await server.start("127.0.0.1", 0)
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            results = [await client.generate(**request) for request in REQUESTS]
        await server.stop(5.0)
        return [result.files[0] for result in results]

    return asyncio.run(paint())


async def painted_by(target: str, **fields: Any) -> str:
    """Have a picture painted and return the name of the replica that did it."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = pb.GenerateRequest(**{"prompt": "a cat", "steps": 2, "seed": 1} | fields)
        call = pb_grpc.MezzotintStub(channel).Generate(request, timeout=60)
        _ = [event async for event in call]
        return str(dict(await call.trailing_metadata())[REPLICA])


def shares(names: list[str]) -> list[int]:
    """Return how many pictures each replica painted, the most first."""
    return [count for _, count in Counter(names).most_common()]


async def eventually(condition: Any, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.1)


async def both(replicas: Cluster) -> set[str]:
    """Return the two replicas' names, once both answer."""
    names: set[str] = set()
    until = time.monotonic() + 120
    while len(names) != 2:
        assert time.monotonic() < until, f"only {names} answer"
        names = set(await asyncio.gather(*(painted_by(replicas.target, seed=seed) for seed in range(6))))
    return names


async def test_pictures_are_byte_by_byte_those_of_our_own_server(client: AsyncClient, expected: list[bytes]) -> None:
    results = await asyncio.gather(*(client.generate(**request) for request in REQUESTS * 3))
    assert [result.files[0] for result in results] == expected * 3


async def test_progress_and_previews_arrive_while_the_picture_is_made(client: AsyncClient) -> None:
    stream = client.stream("a shark", steps=60, seed=3, preview_every=20)
    came = [(time.monotonic(), event) async for event in stream]
    events = [event for _, event in came]
    assert isinstance(events[0], Accepted)
    assert [event.step for event in events if isinstance(event, Progress)] == list(range(1, 61))
    assert sum(bool(event.preview) for event in events if isinstance(event, Progress)) == 3
    (finished,) = [when for when, event in came if isinstance(event, Picture)]
    halfway = next(when for when, event in came if isinstance(event, Progress) and event.step == 30)
    assert halfway - came[0][0] > 0.2 * (finished - came[0][0])
    assert finished - halfway > 0.2 * (finished - came[0][0])


async def test_a_request_that_is_refused_has_our_status_and_sentence(client: AsyncClient) -> None:
    with pytest.raises(MezzotintClientError, match="height=77: must be a multiple of") as refused:
        await client.generate(steps=2, height=77, request_id="odd")
    assert (refused.value.code.name, refused.value.request_id) == ("INVALID_ARGUMENT", "odd")
    with pytest.raises(MezzotintClientError, match="mezzotint deploy-ray") as refused:
        await client.load_model("x")
    assert refused.value.code.name == "FAILED_PRECONDITION"
    with pytest.raises(MezzotintClientError, match="model='unknown'") as refused:
        await client.generate(steps=2, model="unknown")
    assert refused.value.code.name == "NOT_FOUND"


async def test_full_queues_refuse_with_a_time_to_try_again_and_clients_that_do_lose_nothing(
    replicas: Cluster, client: AsyncClient
) -> None:
    async with AsyncClient(replicas.target, timeout=120, retries=30) as patient:
        ask: dict[str, Any] = {"prompt": "a cat", "steps": 2, "num_images": 8}
        hasty = [client.generate(**ask, seed=seed) for seed in range(24)]
        refused = [
            found for found in await asyncio.gather(*hasty, return_exceptions=True) if isinstance(found, Exception)
        ]
        assert refused
        for error in refused:
            assert isinstance(error, MezzotintClientError)
            assert error.code.name == "RESOURCE_EXHAUSTED"
            assert error.retry_after_ms is not None
            assert error.retry_after_ms > 0
        results = await asyncio.gather(*(patient.generate(**ask, seed=seed) for seed in range(24)))
    assert [len(result.files) for result in results] == [8] * 24


async def test_a_deadline_goes_along_to_the_replica(client: AsyncClient) -> None:
    for seed in range(6):
        await client.generate("a cat", steps=8, seed=seed)  # so that both know their pace
    with pytest.raises(MezzotintClientError, match="the deadline") as late:
        await client.generate("a cat", steps=900, timeout=1.5)
    assert late.value.code.name in ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")


async def test_a_client_that_cancels_stops_the_replica(replicas: Cluster, client: AsyncClient) -> None:
    stream = client.stream("a cat", steps=900, request_id="taken-back")
    events = aiter(stream)
    while not isinstance(await anext(events), Progress):
        pass
    stream.cancel()
    with pytest.raises(MezzotintClientError, match="cancelled"):
        await _rest(events)
    await eventually(lambda: replicas.endings("taken-back") == ["Cancelled"], 20)


async def test_a_client_that_is_killed_stops_the_replica(replicas: Cluster) -> None:
    code = (
        "from mezzotint import Client\n"
        f"for event in Client({replicas.target!r}).stream('a cat', steps=900, request_id='killed'):\n"
        "    print(event, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        asking.stdout.readline()
        asking.stdout.readline()
        asking.kill()
    await eventually(lambda: replicas.endings("killed") == ["Cancelled"], 20)


async def test_a_request_id_that_is_sent_again_while_it_runs_is_painted_once(
    replicas: Cluster, client: AsyncClient
) -> None:
    ask: dict[str, Any] = {"prompt": "a cat", "steps": 80, "seed": 5, "request_id": "twice"}
    first = asyncio.ensure_future(client.generate(**ask))
    await asyncio.sleep(0.5)
    async with AsyncClient(replicas.target, timeout=120) as other:
        second = await other.generate(**ask)
    assert (await first).files == second.files
    await eventually(lambda: replicas.endings("twice") == ["finished"], 20)


async def test_a_replica_with_one_long_request_gets_none_of_the_short_ones(
    replicas: Cluster, client: AsyncClient
) -> None:
    await both(replicas)
    busy = asyncio.ensure_future(client.generate("a cat", steps=400, num_images=8, request_id="long", timeout=900))
    await asyncio.sleep(3)  # a report or two
    names = await asyncio.gather(*(painted_by(replicas.target, steps=4, seed=seed) for seed in range(12)))
    assert not busy.done(), "the long request was too short to tell"
    assert len(set(names)) == 1, shares(names)  # by their number, some would have gone to the long one's
    busy.cancel()
    await eventually(lambda: replicas.endings("long") == ["Cancelled"], 20)
    await asyncio.sleep(3)
    even = await asyncio.gather(*(painted_by(replicas.target, steps=10, seed=seed) for seed in range(16)))
    assert shares(even)[-1] >= 4, shares(even)


async def test_health_is_said_through_the_proxy(replicas: Cluster, client: AsyncClient) -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "mezzotint", "health", replicas.target], capture_output=True, text=True
    )
    assert done.stdout == f"{replicas.target}: SERVING\n", done.stderr
    (model,) = await client.models()
    assert (model.name, model.state) == ("emoji", "ready")


async def test_a_replica_that_is_killed_under_load_loses_no_request(replicas: Cluster, expected: list[bytes]) -> None:
    names = await both(replicas)
    asked = REQUESTS * 10
    async with AsyncClient(replicas.target, timeout=240, retries=20) as client:
        waiting = [asyncio.ensure_future(client.generate(**request)) for request in asked]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        victim = sorted(names)[0]
        os.kill(int(victim.rpartition(":")[2]), signal.SIGKILL)  # a replica that this test's own cluster started
        results = await asyncio.gather(*waiting)
    assert [result.files[0] for result in results] == expected * 10
    assert victim not in await both(replicas), "another one took its place"


@pytest.fixture(scope="module")
def another_version(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle with a note in its manifest, so that it has another digest."""
    folder = tmp_path_factory.mktemp("bundles") / "emoji"
    shutil.copytree(emoji_bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["notes"] = [*manifest.get("notes", []), "another version"]
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


async def test_another_version_is_rolled_out_under_load_and_no_request_is_lost(
    replicas: Cluster, emoji_bundle: Path, another_version: Path
) -> None:
    digests: list[str] = []
    done = asyncio.Event()

    async def keep_asking(client: AsyncClient, seed: int) -> None:
        while not done.is_set():
            result = await client.generate("a cat", steps=12, seed=seed)
            digests.append(result.pictures[0].engine_digest)

    async with AsyncClient(replicas.target, timeout=120, retries=20) as client:
        asking = [asyncio.ensure_future(keep_asking(client, seed)) for seed in range(4)]
        await asyncio.sleep(1)
        options = ("--replicas", "2", "--num-cpus", "0.5", "--max-queue-size", "16", "--drain-seconds", "20")
        await asyncio.to_thread(replicas.deploy, another_version, *options)
        await asyncio.sleep(1)
        done.set()
        await asyncio.gather(*asking)
    old, new = (file_digest(folder / MANIFEST) for folder in (emoji_bundle, another_version))
    assert digests[0] == old
    assert digests[-4:] == [new] * 4
    assert set(digests) == {old, new}


async def test_a_cluster_that_is_told_to_stop_finishes_what_it_accepted(replicas: Cluster) -> None:
    """The last test of the module: there is no cluster after it."""
    async with AsyncClient(replicas.target, timeout=120) as client:
        streams = [client.stream("a cat", steps=60, seed=seed) for seed in range(4)]
        events = [aiter(stream) for stream in streams]
        for each in events:
            assert isinstance(await anext(each), Accepted)
        replicas.process.terminate()
        rest = await asyncio.gather(*(_rest(each) for each in events))
    assert [sum(isinstance(event, Picture) for event in each) for each in rest] == [1] * 4
    await eventually(lambda: replicas.process.poll() == 0, 60)


async def _rest(events: AsyncIterator[Any]) -> list[Any]:
    return [event async for event in events]
