"""Bundles that come and go under traffic, over a real socket, on fake engines."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest

from mezzotint.engines.manifest import MANIFEST
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Result
from mezzotint.server import app, lifecycle
from mezzotint.server.catalog import Catalog
from mezzotint.server.service import SERVICE
from tests.server.conftest import eventually
from tests.server.hosting import hosting, refusal_of

Code = grpc.StatusCode


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
        assert (await refusal_of(host.client.load_model("b", timeout=0.2))).code is Code.DEADLINE_EXCEEDED
        assert await host.states() == {"a": "ready", "b": "loading"}
        assert "model b is still loading" in str(await refusal_of(host.ask("b")))
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
        assert (await refusal_of(host.ask("a"))).code is Code.NOT_FOUND
        assert len(host.loader.held) == 2
        unet.release()
        assert (await accepted).files
        await unloading
        assert len(host.loader.held) == 1
        assert await host.states() == {"b": "ready"}
        assert [await host.serves(name) for name in ("", "a", "b")] == [True, False, True]
        assert (await host.ask()).files  # of the only one that is left
        await host.client.unload_model("b")
        assert "no model is served here" in str(await refusal_of(host.ask()))
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
            refusal = await refusal_of(call)
            assert (refusal.code, sentence in str(refusal)) == (code, True), refusal
        call = host.channel.unary_unary(f"/{SERVICE}/LoadModel", response_deserializer=pb.LoadModelResponse.FromString)
        with pytest.raises(grpc.aio.AioRpcError, match=r"are no mezzotint\.v1\.LoadModelRequest with UTF-8"):
            await call(b"\x0a\x02\xff\xfe")
        assert (await host.ask()).files


async def test_without_a_repository_nothing_is_loaded_or_unloaded(root: Path) -> None:
    async with hosting(root, "one") as host:
        host.server.lifecycle._repository = lifecycle.ModelRepository(None)
        for call in (host.client.load_model("two"), host.client.unload_model("model")):
            refusal = await refusal_of(call)
            assert refusal.code is Code.FAILED_PRECONDITION
            assert "start it with `--model-repository FOLDER`" in str(refusal)
        assert (await host.ask()).files


async def test_a_server_that_stops_ends_a_load_that_is_under_way(root: Path) -> None:
    async with hosting(root, "a") as host:
        host.loader.gate.clear()
        load = asyncio.create_task(host.client.load_model("b"))
        await eventually(lambda: "b" in host.server.catalog.names)
        stopped = asyncio.create_task(host.server.stop(5.0))
        await eventually(lambda: host.server.catalog.version("a").core is None)
        host.loader.gate.set()
        refusal = await refusal_of(load)
        assert (refusal.code, "the server is stopping" in str(refusal)) == (Code.UNAVAILABLE, True)
        assert await stopped
        assert host.server.catalog.cores == ()


async def test_a_load_that_takes_longer_than_the_drain_is_not_waited_for(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_STOP_SECONDS", 0.05)
    async with hosting(root, "a") as host:
        host.loader.gate.clear()
        load = asyncio.create_task(host.client.load_model("b"))
        await eventually(lambda: "b" in host.server.catalog.names)
        async with asyncio.timeout(10):
            await host.server.stop(0.1)
        assert (await refusal_of(load)).code in (Code.UNAVAILABLE, Code.CANCELLED)
        host.loader.gate.set()
        await eventually(lambda: host.loader.held == [])


class Draining:
    """A core that is drained only together with so many others."""

    num_open = 1

    def __init__(self, name: str, together: threading.Barrier) -> None:
        self.model = SimpleNamespace(name=name, digest=name)
        self._together = together

    def drain(self, timeout: float) -> bool:
        self._together.wait(10)
        return True

    def close(self) -> None:
        pass


async def test_all_cores_begin_to_drain_at_once() -> None:
    catalog, together = Catalog(), threading.Barrier(40)
    for number in range(40):
        catalog.add(Draining(str(number), together))  # type: ignore[arg-type]
    assert await lifecycle.Lifecycle(catalog).close(5.0)
