"""Models whose engines keep failing are loaded again, over a real socket, on fake engines."""

import asyncio
from pathlib import Path

import grpc

from tests.server.bundles import FakeLoader
from tests.server.conftest import eventually
from tests.server.hosting import hosting, refusal_of

Code = grpc.StatusCode


async def test_a_model_whose_engine_fails_three_times_in_a_row_is_loaded_again_and_serves(root: Path) -> None:
    async with hosting(root, "a", "b") as host:
        unet = host.unet("a")
        unet.hold()
        unet.failures = 5  # the calls of three requests, and those of the first two's first images alone
        asked = [host.ask("a", num_images=4, request_id=f"r{i}") for i in range(4)]  # each fills a call
        assert await asyncio.to_thread(unet.entered.acquire, timeout=10)
        await eventually(lambda: host.server.catalog.find("a").num_open == 4)
        await asyncio.sleep(0.2)
        host.loader.gate.clear()
        unet.step(5)
        endings = sorted([await refusal_of(task) for task in asked], key=lambda ending: ending.code.name)
        assert [ending.code for ending in endings] == [Code.INTERNAL] * 2 + [Code.UNAVAILABLE] * 2
        sentence = (
            "model a: its engine failed 3 times in a row and it is being loaded again; send the request once more"
        )
        assert {str(ending) for ending in endings[2:]} == {sentence}
        unet.release()
        assert [await host.serves(name) for name in ("", "a", "b")] == [True, False, True]
        assert (await host.states())["a"] == "loading"
        assert str(await refusal_of(host.ask("a"))) == sentence
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
                assert (await refusal_of(host.ask("a"))).code is Code.INTERNAL
            await eventually(lambda: not host.server.catalog.takes_requests("a") or len(host.loader.unets["a"]) == 2)
        await eventually(lambda: not host.server.catalog.takes_requests("a"))
        refusal = await refusal_of(host.ask("a"))
        assert (refusal.code, "again after it had been loaded anew" in str(refusal)) == (Code.UNAVAILABLE, True)
        assert await host.states() == {"a": "unavailable"}
        assert not await host.serves("")  # none of its models can serve
        host.loader.failing.clear()
        await host.client.load_model("a")
        assert (await host.ask("a")).files
        assert await host.serves("")
