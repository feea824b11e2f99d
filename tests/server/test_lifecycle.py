"""Bundles that come and go under traffic, over a real socket, on fake engines."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.manifest import MANIFEST
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Result
from mezzotint.server import lifecycle
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import LifecycleConfig
from mezzotint.server.service import SERVICE
from tests.fakes import FakeEngine
from tests.server.bundles import UNIT, FakeLoader, write_bundle
from tests.server.conftest import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
Code = grpc.StatusCode


@dataclass
class Host:
    """A server with a model repository."""

    server: Server
    loader: FakeLoader
    root: Path
    client: AsyncClient
    channel: grpc.aio.Channel

    async def serves(self, name: str) -> bool:
        """Return what the health service says of a model; the empty name is the server."""
        request = health_pb2.HealthCheckRequest(service=name)
        return (await health_pb2_grpc.HealthStub(self.channel).Check(request)).status == SERVING

    async def states(self) -> dict[str, str]:
        return {model.name: model.state for model in await self.client.models()}

    def unet(self, folder: str) -> FakeEngine:
        return self.loader.unets[folder][-1]

    def ask(self, model: str = "", **options: Any) -> "asyncio.Task[Result]":
        return asyncio.create_task(self.client.generate("a cat", **{"model": model, "steps": 2, "seed": 1} | options))


@asynccontextmanager
async def hosting(root: Path, *folders: str, loader: FakeLoader | None = None) -> AsyncIterator[Host]:
    """Serve these bundles of a repository, which also has others."""
    loader = loader or FakeLoader()
    server = Server(Catalog(), loader=loader, lifecycle=LifecycleConfig(root))
    await server.lifecycle.start([root / folder for folder in folders])
    target = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    await server.set_ready(True)
    async with AsyncClient(target) as client, grpc.aio.insecure_channel(target) as channel:
        yield Host(server, loader, root, client, channel)
    loader.gate.set()
    for unet in [unet for unets in loader.unets.values() for unet in unets]:
        unet.release()
    await server.stop(5.0)
    assert loader.held == []


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository of two versions of one model, and of three other models."""
    write_bundle(tmp_path, "one", name="model", sampler="ddim")
    write_bundle(tmp_path, "two", name="model", sampler="euler_a")
    for name in ("a", "b", "c"):
        write_bundle(tmp_path, name)
    return tmp_path


async def refused(call: Awaitable[Any]) -> MezzotintClientError:
    with pytest.raises(MezzotintClientError) as refusal:
        await call
    return refusal.value


def digest(result: Result) -> str:
    return result.pictures[0].engine_digest


async def test_twenty_swaps_under_traffic_lose_no_request(root: Path) -> None:
    async with hosting(root, "one") as host:
        pictures: dict[tuple[str, int], set[bytes]] = {}
        num_sent = num_done = 0
        stopped = asyncio.Event()

        async def traffic(seed: int) -> None:
            nonlocal num_sent, num_done
            while not stopped.is_set():
                num_sent += 1
                result = await host.client.generate("a cat", model="model", steps=3, seed=seed)
                pictures.setdefault((digest(result), seed), set()).add(result.files[0])
                num_done += 1

        async def swap(i: int) -> None:
            loaded = await host.client.load_model(("two", "one")[i % 2])
            before = num_done
            assert {loaded.model.digest, loaded.replaced_digest} == digests
            await eventually(lambda: num_done >= before + 4)  # the new one has served

        digests = {host.loader.read(root / folder).digest for folder in ("one", "two")}
        clients = [asyncio.create_task(traffic(seed)) for seed in range(4)]
        for i in range(20):
            await swap(i)
        stopped.set()
        await asyncio.gather(*clients)  # a request that is refused or lost raises here
        assert num_done == num_sent >= 80
        assert {key[0] for key in pictures} == digests
        assert all(len(files) == 1 for files in pictures.values())
        assert len({file for files in pictures.values() for file in files}) == 8
        await eventually(lambda: len(host.server.catalog.versions) == 1 == len(host.loader.held))
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("mezzotint-model") == 1  # the loop of the only core that is left
        assert sum(name.startswith("mezzotint-model-worker") for name in names) <= 4


async def test_the_old_version_finishes_what_it_accepted_while_the_new_one_serves(root: Path) -> None:
    async with hosting(root, "one") as host:
        old = host.unet("one")
        old.hold()
        accepted = host.ask(steps=3)
        assert await asyncio.to_thread(old.entered.acquire, timeout=10)
        loaded = await host.client.load_model("two")
        new = await host.ask()
        models = {model.digest: model.state for model in await host.client.models()}
        assert models == {loaded.model.digest: "ready", loaded.replaced_digest: "unloading"}
        assert await host.serves("model")
        assert not accepted.done()
        old.release()
        assert (digest(await accepted), digest(new)) == (loaded.replaced_digest, loaded.model.digest)
        await eventually(lambda: len(host.loader.held) == 1)


async def test_two_loads_of_one_name_follow_each_other(root: Path) -> None:
    async with hosting(root, "one") as host:
        host.loader.gate.clear()
        loads = [asyncio.create_task(host.client.load_model(folder)) for folder in ("two", "one")]
        await asyncio.sleep(0.1)
        host.loader.gate.set()
        first, second = sorted(await asyncio.gather(*loads), key=lambda loaded: loaded.model.digest)
        assert (first.replaced_digest == second.model.digest) or (second.replaced_digest == first.model.digest)
        await eventually(lambda: len(host.server.catalog.versions) == 1 == len(host.loader.held))


async def test_a_client_that_goes_away_does_not_stop_a_load(root: Path) -> None:
    async with hosting(root, "a") as host:
        host.loader.gate.clear()
        assert (await refused(host.client.load_model("b", timeout=0.2))).code is Code.DEADLINE_EXCEEDED
        assert await host.states() == {"a": "ready", "b": "loading"}
        assert "model b is still loading" in str(await refused(host.ask("b")))
        host.loader.gate.set()
        await eventually(lambda: host.server.catalog.takes_requests("b"))
        assert (await host.ask("b")).files


async def test_an_unloaded_model_finishes_gives_its_memory_back_and_is_not_found(root: Path) -> None:
    async with hosting(root, "a", "b") as host:
        unet = host.unet("a")
        unet.hold()
        accepted = host.ask("a", steps=3)
        assert await asyncio.to_thread(unet.entered.acquire, timeout=10)
        unloading = asyncio.create_task(host.client.unload_model("a"))
        await eventually(lambda: not host.server.catalog.takes_requests("a"))
        assert await host.states() == {"a": "unloading", "b": "ready"}
        assert (await refused(host.ask("a"))).code is Code.NOT_FOUND
        assert len(host.loader.held) == 2
        unet.release()
        assert (await accepted).files
        await unloading
        assert len(host.loader.held) == 1
        assert await host.states() == {"b": "ready"}
        assert [await host.serves(name) for name in ("", "a", "b")] == [True, False, True]
        assert (await host.ask()).files  # of the only one that is left
        await host.client.unload_model("b")
        assert "no model is served here" in str(await refused(host.ask()))
        assert (await host.client.load_model("a")).replaced_digest == ""


async def test_what_may_not_be_loaded_or_unloaded_is_one_sentence(root: Path) -> None:
    (root / "damaged").mkdir()
    (root / "damaged" / MANIFEST).write_text("{}", encoding="utf-8")
    async with hosting(root, "one") as host:
        load, unload = host.client.load_model, host.client.unload_model
        for call, code, sentence in (
            (load("../one"), Code.INVALID_ARGUMENT, "must be the name of a folder in the model repository"),
            (load("three"), Code.NOT_FOUND, "it has a, b, c, damaged, one, two"),
            (load("damaged"), Code.FAILED_PRECONDITION, "compile the bundle again"),
            (unload(""), Code.INVALID_ARGUMENT, "name: must be that of the model to unload"),
            (unload("three"), Code.NOT_FOUND, "model='three': is not served here; use model"),
        ):
            refusal = await refused(call)
            assert (refusal.code, sentence in str(refusal)) == (code, True), refusal
        call = host.channel.unary_unary(f"/{SERVICE}/LoadModel", response_deserializer=pb.LoadModelResponse.FromString)
        with pytest.raises(grpc.aio.AioRpcError, match=r"are no mezzotint\.v1\.LoadModelRequest with UTF-8"):
            await call(b"\x0a\x02\xff\xfe")
        assert (await host.ask()).files


async def test_without_a_repository_nothing_is_loaded_or_unloaded(root: Path) -> None:
    async with hosting(root, "one") as host:
        host.server.lifecycle._repository = lifecycle.ModelRepository(None)
        for call in (host.client.load_model("two"), host.client.unload_model("model")):
            refusal = await refused(call)
            assert refusal.code is Code.FAILED_PRECONDITION
            assert "start it with `--model-repository FOLDER`" in str(refusal)
        assert (await host.ask()).files


async def test_idle_bundles_make_room_and_a_request_brings_them_back(root: Path) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT)) as host:
        await host.ask("b")
        await host.ask("a")
        await host.client.load_model("c")
        assert await host.states() == {"a": "ready", "b": "unavailable", "c": "ready"}
        assert [m.reason for m in await host.client.models() if m.name == "b"] == [
            "its memory was needed; the next request loads it again"
        ]
        assert await host.serves("b")
        assert all(await asyncio.gather(*(host.ask("b", seed=seed) for seed in range(3))))
        assert await host.states() == {"a": "unavailable", "b": "ready", "c": "ready"}
        assert [len(host.loader.unets[name]) for name in "abc"] == [1, 2, 1]


async def test_what_has_no_room_is_refused_at_once_and_nothing_is_evicted_for_it(root: Path) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT, sizes={"c": 2, "two": 3})) as host:
        host.unet("b").hold()
        busy = host.ask("b")
        assert await asyncio.to_thread(host.unet("b").entered.acquire, timeout=10)
        for folder in ("c", "two"):
            refusal = await refused(host.client.load_model(folder))
            assert refusal.code is Code.RESOURCE_EXHAUSTED
            assert f"{folder} needs {host.loader.sizes[folder] * UNIT}, idle ones hold {UNIT}" in str(refusal)
        assert await host.states() == {"a": "ready", "b": "ready"}
        host.unet("b").release()
        assert (await busy).files
        await host.client.load_model("c")
        assert await host.states() == {"a": "unavailable", "b": "unavailable", "c": "ready"}
        host.unet("c").hold()
        busy = host.ask("c")
        assert await asyncio.to_thread(host.unet("c").entered.acquire, timeout=10)
        assert (await refused(host.ask("a"))).code is Code.RESOURCE_EXHAUSTED
        host.unet("c").release()
        await busy
        assert (await host.ask("a")).files  # and tries again with the next request


async def test_a_load_waits_for_the_memory_of_a_version_that_is_finishing(root: Path) -> None:
    async with hosting(root, "one", loader=FakeLoader(room=2 * UNIT)) as host:
        unet = host.unet("one")
        unet.hold()
        accepted = host.ask(steps=3)
        assert await asyncio.to_thread(unet.entered.acquire, timeout=10)
        await host.client.load_model("two")
        third = asyncio.create_task(host.client.load_model("one"))
        await asyncio.sleep(0.1)
        assert not third.done()
        unet.release()
        assert (await accepted).files
        assert (await third).replaced_digest


async def test_requests_wait_for_an_evicted_bundle_within_their_deadlines_and_not_too_many(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "_MAX_WAITING", 2)
    async with hosting(root, "a", loader=FakeLoader(room=UNIT)) as host:
        await host.client.load_model("b")
        host.loader.gate.clear()
        patient, hasty = host.ask("a"), host.ask("a", timeout=0.3)
        await eventually(lambda: host.server.catalog.version("a").num_waiting == 2)
        assert (await refused(host.ask("a"))).code is Code.UNAVAILABLE
        assert (await refused(hasty)).code is Code.DEADLINE_EXCEEDED
        assert await host.states() == {"a": "loading", "b": "unavailable"}
        host.loader.gate.set()
        assert (await patient).files


async def test_a_model_whose_engine_fails_three_times_in_a_row_is_loaded_again_and_serves(root: Path) -> None:
    async with hosting(root, "a", "b") as host:
        unet = host.unet("a")
        unet.hold()
        unet.failures = 3
        asked = [host.ask("a", num_images=4, request_id=f"r{i}") for i in range(4)]  # each fills a call
        assert await asyncio.to_thread(unet.entered.acquire, timeout=10)
        await eventually(lambda: host.server.catalog.find("a").num_open == 4)
        await asyncio.sleep(0.2)
        host.loader.gate.clear()
        unet.step(3)
        endings = sorted([await refused(task) for task in asked], key=lambda ending: ending.code.name)
        assert [ending.code for ending in endings] == [Code.INTERNAL] * 3 + [Code.UNAVAILABLE]
        sentence = (
            "model a: its engine failed 3 times in a row and it is being loaded again; send the request once more"
        )
        assert str(endings[3]) == sentence
        unet.release()
        assert [await host.serves(name) for name in ("", "a", "b")] == [True, False, True]
        assert (await host.states())["a"] == "loading"
        assert str(await refused(host.ask("a"))) == sentence
        assert (await host.ask("b")).files
        host.loader.gate.set()
        await eventually(lambda: host.server.catalog.takes_requests("a"))
        assert (await host.ask("a")).files
        assert await host.serves("a")
        assert len(host.loader.unets["a"]) == 2


async def test_a_model_that_fails_again_before_it_has_made_a_picture_stays_away_until_it_is_loaded_by_hand(
    root: Path,
) -> None:
    async with hosting(root, "a", loader=FakeLoader(failing={"a"})) as host:
        for _ in range(2):
            await eventually(lambda: host.server.catalog.takes_requests("a"))
            for _ in range(3):
                assert (await refused(host.ask("a"))).code is Code.INTERNAL
            await eventually(lambda: not host.server.catalog.takes_requests("a") or len(host.loader.unets["a"]) == 2)
        await eventually(lambda: not host.server.catalog.takes_requests("a"))
        refusal = await refused(host.ask("a"))
        assert (refusal.code, "again after it had been loaded anew" in str(refusal)) == (Code.UNAVAILABLE, True)
        assert await host.states() == {"a": "unavailable"}
        assert not await host.serves("")  # none of its models can serve
        host.loader.failing.clear()
        await host.client.load_model("a")
        assert (await host.ask("a")).files
        assert await host.serves("")


async def test_a_bundle_that_is_gone_cannot_be_loaded_again_and_says_so(root: Path) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT)) as host:
        await host.client.load_model("c")  # a makes room
        (root / "a" / MANIFEST).unlink()
        assert (await refused(host.ask("a"))).code is Code.FAILED_PRECONDITION
        refusal = await refused(host.ask("a"))
        assert refusal.code is Code.UNAVAILABLE
        assert str(refusal).startswith(f"model a could not be loaded again: {root / 'a'}: no bundle there")
        assert not await host.serves("a")
        write_bundle(root, "b", name="other")
        host.unet("b").failures = 3
        for _ in range(3):
            await refused(host.ask("b"))
        await eventually(lambda: "holds other by now" in host.server.catalog.version("b").reason)


async def test_a_server_that_stops_ends_a_load_that_is_under_way(root: Path) -> None:
    async with hosting(root, "a") as host:
        host.loader.gate.clear()
        load = asyncio.create_task(host.client.load_model("b"))
        await eventually(lambda: "b" in host.server.catalog.names)
        stopped = asyncio.create_task(host.server.stop(5.0))
        await eventually(lambda: host.server.catalog.version("a").core is None)
        host.loader.gate.set()
        refusal = await refused(load)
        assert (refusal.code, "the server is stopping" in str(refusal)) == (Code.UNAVAILABLE, True)
        assert await stopped
        assert host.server.catalog.cores == ()
