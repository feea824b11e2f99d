"""Bundles that make room for each other under a memory budget, over a real socket, on fake engines."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mezzotint.engines.manifest import MANIFEST
from mezzotint.server import lifecycle
from mezzotint.server.config import KserveConfig
from tests.server.bundles import UNIT, FakeLoader, write_bundle
from tests.server.conftest import eventually
from tests.server.hosting import hosting, refusal_of
from tests.server.kserve.conftest import inputs

Code = grpc.StatusCode


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


async def test_a_request_for_a_bundle_that_is_to_leave_beside_others_is_not_lost(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = FakeLoader(room=2 * UNIT, sizes={"c": 2})
    async with hosting(root, "a", "b", loader=loader) as host:
        closing, go = list[str](), threading.Event()

        def slow(name: str, close: Callable[..., None], *why: str) -> None:
            closing.append(name)
            assert go.wait(10)
            close(*why)

        for name in ("a", "b"):
            core = host.server.catalog.find(name)
            monkeypatch.setattr(core, "close", partial(slow, name, core.close))
        loading = asyncio.create_task(host.client.load_model("c"))
        await eventually(lambda: closing)
        (other,) = {"a", "b"} - set(closing)
        asked = host.ask(other)
        await asyncio.sleep(0.1)
        go.set()
        await loading
        assert (await asked).files


async def test_what_has_no_room_is_refused_at_once_and_nothing_is_evicted_for_it(root: Path) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT, sizes={"c": 2, "two": 3})) as host:
        host.unet("b").hold()
        busy = host.ask("b")
        assert await asyncio.to_thread(host.unet("b").entered.acquire, timeout=10)
        hinted = await refusal_of(host.client.load_model("c"))
        assert (hinted.retry_after_ms or 0) >= 1000  # the one that is busy will be idle
        never = await refusal_of(host.client.load_model("two"))
        assert never.retry_after_ms is None
        for folder in ("c", "two"):
            refusal = await refusal_of(host.client.load_model(folder))
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
        assert (await refusal_of(host.ask("a"))).code is Code.RESOURCE_EXHAUSTED
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
        assert (await refusal_of(host.ask("a"))).code is Code.UNAVAILABLE
        assert (await refusal_of(hasty)).code is Code.DEADLINE_EXCEEDED
        assert await host.states() == {"a": "loading", "b": "unavailable"}
        host.loader.gate.set()
        assert (await patient).files


async def test_a_bundle_that_is_gone_cannot_be_loaded_again_and_says_so(root: Path) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT)) as host:
        await host.client.load_model("c")  # a makes room
        (root / "a" / MANIFEST).unlink()
        assert (await refusal_of(host.ask("a"))).code is Code.FAILED_PRECONDITION
        refusal = await refusal_of(host.ask("a"))
        assert refusal.code is Code.UNAVAILABLE
        assert str(refusal).startswith(f"model a could not be loaded again: {root / 'a'}: no bundle there")
        assert not await host.serves("a")
        write_bundle(root, "b", name="other")
        host.unet("b").failures = 3
        for _ in range(3):
            await refusal_of(host.ask("b"))
        await eventually(lambda: "holds other by now" in host.server.catalog.version("b").reason)


async def test_a_swap_makes_do_with_fewer_row_counts_of_the_version_that_leaves(root: Path) -> None:
    counts = {"one": (1, 2, 4), "other": (1, 2)}
    async with hosting(root, "one", loader=FakeLoader(room=4 * UNIT, counts=counts)) as host:
        write_bundle(root, "other", name="model", notes=("another",))
        unet = host.unet("one")
        unet.hold()
        accepted = host.ask(steps=3)
        assert await asyncio.to_thread(unet.entered.acquire, timeout=10)
        host.loader.gate.clear()
        swap = asyncio.create_task(host.client.load_model("other"))
        await eventually(lambda: len(host.loader.held) == 2)
        assert [loading.num_bytes() for loading in host.loader.held] == [2 * UNIT, 2 * UNIT]
        host.loader.gate.set()
        await swap
        unet.release()
        assert (await accepted).files
        assert (await host.ask()).files
        await eventually(lambda: [loading.num_bytes() for loading in host.loader.held] == [2 * UNIT])


async def test_a_request_of_kserves_waits_for_an_evicted_bundle_no_longer_than_it_says(root: Path) -> None:
    async with hosting(root, "a", loader=FakeLoader(room=UNIT), kserve=KserveConfig()) as host:
        await host.client.load_model("b")
        host.loader.gate.clear()
        async with InferenceServerClient(host.target) as client:
            with pytest.raises(InferenceServerException, match="the deadline passed before the model was") as late:
                await asyncio.wait_for(client.infer("a", inputs(), timeout=100_000), 10)
        assert late.value.status() == str(Code.DEADLINE_EXCEEDED)
        host.loader.gate.set()
        assert (await host.ask("a")).files


@pytest.mark.parametrize("fails", [False, True])
async def test_a_load_waits_for_memory_that_is_being_given_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    async with hosting(root, "a", loader=FakeLoader(room=UNIT)) as host:
        closing, go = threading.Event(), threading.Event()
        core = host.server.catalog.find("a")

        def slow(close: Callable[..., None], *why: str) -> None:
            closing.set()
            assert go.wait(10)
            close(*why)

        monkeypatch.setattr(core, "close", partial(slow, core.close))
        if fails:
            host.unet("a").failures = 3
            for _ in range(3):
                await refusal_of(host.ask("a"))
        else:
            leaving = asyncio.create_task(host.client.unload_model("a"))
        assert await asyncio.to_thread(closing.wait, 10)
        loading = asyncio.create_task(host.client.load_model("b"))
        await asyncio.sleep(0.1)
        assert not loading.done()
        go.set()
        await loading
        if fails:
            await eventually(lambda: len(host.loader.unets["a"]) == 2 and host.server.catalog.takes_requests("a"))
        else:
            await leaving


async def test_memory_that_is_given_back_too_slowly_for_a_load_is_in_its_hint(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT, sizes={"c": 2})) as host:
        go = threading.Event()
        core = host.server.catalog.find("a")
        monkeypatch.setattr(core, "close", lambda *why, close=core.close: go.wait(10) and close(*why))
        host.unet("b").hold()
        busy = host.ask("b")
        assert await asyncio.to_thread(host.unet("b").entered.acquire, timeout=10)
        leaving = asyncio.create_task(host.client.unload_model("a"))
        await eventually(lambda: any(version.is_closing for version in host.server.catalog.versions))
        assert (await refusal_of(host.client.load_model("c"))).retry_after_ms is not None
        go.set()
        host.unet("b").release()
        await asyncio.gather(busy, leaving)


async def test_a_core_that_cannot_be_closed_is_in_no_others_way(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosting(root, "a", "b", loader=FakeLoader(room=2 * UNIT, sizes={"c": 2})) as host:
        core = host.server.catalog.find("a")

        def fail(*why: str, close: Callable[..., None] = core.close) -> None:
            close(*why)
            raise RuntimeError("the engine is stuck")

        monkeypatch.setattr(core, "close", fail)
        await host.client.load_model("c")
        assert "model a could not be closed" in caplog.text
        assert len(host.loader.held) == 1
