import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.errors import BundleError, Unavailable
from mezzotint.engines.hires import Hires
from mezzotint.engines.request import Request
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto import mezzotint_pb2_grpc as pb_grpc
from mezzotint.proto.errors import PUSHBACK_MS, REQUEST_ID, RETRY_AFTER_MS
from mezzotint.proto.results import Accepted, Progress
from mezzotint.server.catalog import State
from mezzotint.server.config import ServerConfig
from mezzotint.server.ray.context import REPLICA, process_name
from mezzotint.server.ray.door import APPLICATION, ROWS, SECONDS, SERVE_REQUEST_ID, rows_of
from mezzotint.server.ray.loads import ROW_SECONDS, SECONDS_LEFT, SERIAL
from mezzotint.server.ray.replica import BUNDLE, DIGEST, Replica
from tests.fakes import FakeEngine
from tests.server.bundles import FakeLoader, write_bundle
from tests.server.conftest import eventually
from tests.server.ray.proxy import Proxy, listening


@dataclass
class Deployed:
    """One replica on fake engines behind a proxy."""

    root: Path
    loader: FakeLoader
    replica: Replica
    proxy: Proxy
    target: str
    client: AsyncClient

    def config(self, folder: str, **changes: str) -> dict[str, str]:
        path = self.root / folder
        return {BUNDLE: str(path), DIGEST: self.loader.read(path).digest} | changes

    def unet(self, folder: str) -> FakeEngine:
        return self.loader.unets[folder][-1]


@pytest.fixture
async def deployed(tmp_path: Path) -> AsyncIterator[Deployed]:
    write_bundle(tmp_path, "one", name="emoji")
    write_bundle(tmp_path, "two", name="emoji", notes=("another",))
    write_bundle(tmp_path, "other", name="pets")
    loader = FakeLoader()
    replica = Replica(ServerConfig(), LoadOptions(devices={}, cache=False), loader=loader)
    proxy = Proxy(replica)
    async with listening(proxy) as target, AsyncClient(target) as client:
        made = Deployed(tmp_path, loader, replica, proxy, target, client)
        await replica.reconfigure(made.config("one"))
        yield made
        for engines in loader.unets.values():
            for engine in engines:
                engine.release()
        await replica._lifecycle.close(5.0)


async def asked(target: str, **fields: Any) -> grpc.aio.UnaryStreamCall[Any, Any]:
    """Return a call for a picture, read to its end."""
    async with grpc.aio.insecure_channel(target) as channel:
        call = pb_grpc.MezzotintStub(channel).Generate(pb.GenerateRequest(**{"steps": 2, "seed": 1} | fields))
        try:
            events = [event async for event in call]
        except grpc.aio.AioRpcError:
            events = []
        call.events = events
        await call.code()
        return call


async def test_a_picture_comes_through_with_progress_and_the_name_of_who_made_it(deployed: Deployed) -> None:
    progress: list[Progress] = []
    result = await deployed.client.generate("a cat", steps=3, seed=7, request_id="mine", on_progress=progress.append)
    assert len(result.files) == 1
    assert [each.step for each in progress] == [1, 2, 3]
    call = await asked(deployed.target, request_id="named")
    assert (await call.code(), dict(await call.initial_metadata())[REQUEST_ID]) == (grpc.StatusCode.OK, "named")
    assert dict(await call.trailing_metadata())[REPLICA] == process_name()


@pytest.mark.parametrize(
    ("asked_for", "rows"),
    [
        (Request(prompt="a cat AND a hat", steps=4, guidance=3.0), 12),
        (Request(steps=4, guidance=3.0, hires=Hires(2.0)), 16),
        (Request(steps=4, guidance=1.0, hires=Hires(2.0, hires_steps=3)), 7),
    ],
)
def test_every_row_that_a_request_names_is_counted(asked_for: Request, rows: int) -> None:
    assert rows_of(asked_for) == rows


async def test_router_and_replica_hear_of_a_requests_id_work_model_and_deadline(deployed: Deployed) -> None:
    await deployed.client.generate(steps=4, guidance=3.0, num_images=2, model="emoji", request_id="x", timeout=60)
    await deployed.client.generate(steps=4, guidance=1.0)
    first, second = deployed.proxy.seen
    assert (first[SERVE_REQUEST_ID], first[ROWS], first[APPLICATION]) == ("x", "16", "emoji")
    assert 50 < float(first[SECONDS]) <= 60
    assert second[ROWS] == "4"
    assert APPLICATION not in second
    assert SECONDS not in second


async def test_clients_cannot_say_what_the_door_says(deployed: Deployed) -> None:
    async with grpc.aio.insecure_channel(deployed.target) as channel:
        stub = pb_grpc.MezzotintStub(channel)
        forged = ((ROWS, "0"), (SERVE_REQUEST_ID, "forged"))
        call = stub.Generate(pb.GenerateRequest(steps=2, request_id="real"), metadata=forged)
        _ = [event async for event in call]
    assert (deployed.proxy.seen[0][ROWS], deployed.proxy.seen[0][SERVE_REQUEST_ID]) == ("4", "real")


@pytest.mark.parametrize(
    ("fields", "code", "sentence"),
    [
        ({"width": 13}, grpc.StatusCode.INVALID_ARGUMENT, "width=13"),
        ({"sampler": "no such"}, grpc.StatusCode.INVALID_ARGUMENT, "no such"),
        ({"request_id": "a b"}, grpc.StatusCode.INVALID_ARGUMENT, "request_id"),
        ({"priority": 9}, grpc.StatusCode.INVALID_ARGUMENT, "priority=9"),
        ({"steps": 0, "image": b"x"}, grpc.StatusCode.INVALID_ARGUMENT, "steps=0"),
    ],
)
async def test_a_refusal_has_its_status_its_sentence_and_the_requests_id(
    deployed: Deployed, fields: dict[str, Any], code: grpc.StatusCode, sentence: str
) -> None:
    call = await asked(deployed.target, **fields)
    assert await call.code() is code
    assert sentence in (await call.details() or "")
    assert dict(await call.trailing_metadata())[REQUEST_ID] == dict(await call.initial_metadata())[REQUEST_ID]
    assert call.events == []


async def test_a_full_queue_says_when_to_try_again_through_the_proxy(deployed: Deployed) -> None:
    unet, core = deployed.unet("one"), deployed.replica._catalog.cores[0]
    unet.hold()
    waiting = [asyncio.ensure_future(asked(deployed.target, num_images=64)) for _ in range(8)]
    await eventually(lambda: core.num_open == 8)
    unet.release()
    calls = await asyncio.gather(*waiting)
    refused = [call for call in calls if await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert 0 < len(refused) < 8
    for call in refused:
        trailing = dict(await call.trailing_metadata())
        assert int(trailing[RETRY_AFTER_MS]) > 0
        assert trailing[PUSHBACK_MS] == trailing[RETRY_AFTER_MS]


async def test_bytes_that_are_no_request_never_reach_a_replica(deployed: Deployed) -> None:
    async with grpc.aio.insecure_channel(deployed.target) as channel:
        call = channel.unary_stream("/mezzotint.v1.Mezzotint/Generate")(b"\xff\xff\xff")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            _ = [event async for event in call]
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert deployed.proxy.seen == []


async def test_a_replica_that_is_gone_in_mid_request_is_unavailable_and_the_client_sends_the_same_again(
    deployed: Deployed,
) -> None:
    expected = await deployed.client.generate("a cat", steps=3, seed=7)
    deployed.proxy.lose_after = 2
    with pytest.raises(MezzotintClientError, match="lost with the request unfinished") as lost:
        await deployed.client.generate("a cat", steps=3, seed=7)
    assert lost.value.code is grpc.StatusCode.UNAVAILABLE
    deployed.proxy.lose_after = 2
    async with AsyncClient(deployed.target, retries=3) as client:
        events = [event async for event in client.stream("a cat", steps=3, seed=7)]
    assert sum(isinstance(event, Accepted) for event in events) == 2
    assert events[-1].data == expected.files[0]


async def test_where_nothing_is_deployed_yet_clients_try_again_and_an_unknown_model_is_not_found(
    deployed: Deployed,
) -> None:
    deployed.proxy.replica = None
    with pytest.raises(MezzotintClientError, match="no model is deployed yet") as early:
        await deployed.client.generate(steps=2)
    assert early.value.code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(MezzotintClientError, match="model='pets'") as unknown:
        await deployed.client.generate(steps=2, model="pets")
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_goes_takes_its_request_back(deployed: Deployed) -> None:
    unet = deployed.unet("one")
    unet.hold()
    stream = deployed.client.stream(steps=50)
    events = aiter(stream)
    assert isinstance(await anext(events), Accepted)
    core = deployed.replica._catalog.cores[0]
    assert core.num_open == 1
    stream.cancel()
    with pytest.raises(MezzotintClientError):
        await anext(events)
    unet.release()
    await eventually(lambda: core.num_open == 0)


async def test_models_are_listed_health_is_said_and_loading_is_refused(deployed: Deployed) -> None:
    (model,) = await deployed.client.models()
    assert model.name == "emoji"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "mezzotint", "health", deployed.target], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, f"{deployed.target}: SERVING\n")
    with pytest.raises(MezzotintClientError, match="mezzotint deploy-ray") as refused:
        await deployed.client.load_model("two")
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_another_version_takes_the_place_of_the_first_which_finishes_what_it_has(deployed: Deployed) -> None:
    old = deployed.unet("one")
    old.hold()
    running = asyncio.ensure_future(deployed.client.generate(steps=3, seed=1))
    await asyncio.to_thread(old.entered.acquire, timeout=10)
    await deployed.replica.reconfigure(deployed.config("two"))
    new = await deployed.client.generate(steps=3, seed=1)
    assert not running.done()
    old.release()
    before = await running
    digests = [deployed.loader.read(deployed.root / folder).digest for folder in ("one", "two")]
    assert [result.pictures[0].engine_digest for result in (before, new)] == digests
    await eventually(lambda: len(deployed.replica._catalog.cores) == 1)


async def test_the_same_version_again_is_not_loaded_again(deployed: Deployed) -> None:
    await deployed.replica.reconfigure(deployed.config("one"))
    assert len(deployed.loader.unets["one"]) == 1


async def test_a_bundle_of_another_name_or_another_digest_is_refused_and_the_first_serves_on(
    deployed: Deployed,
) -> None:
    with pytest.raises(BundleError, match="holds pets, and emoji is served"):
        await deployed.replica.reconfigure(deployed.config("other"))
    with pytest.raises(BundleError, match="not the bundle that was deployed"):
        await deployed.replica.reconfigure(deployed.config("two", digest="0" * 64))
    assert len((await deployed.client.generate(steps=2)).files) == 1


async def test_a_replica_tells_how_much_there_is_to_do(deployed: Deployed) -> None:
    idle = await deployed.replica.record_routing_stats()
    deployed.unet("one").hold()
    running = asyncio.ensure_future(deployed.client.generate(steps=30))
    await asyncio.to_thread(deployed.unet("one").entered.acquire, timeout=10)
    busy = await deployed.replica.record_routing_stats()
    assert idle[SECONDS_LEFT] == 0 < busy[SECONDS_LEFT]
    assert busy[ROW_SECONDS] > 0
    assert busy[SERIAL] > idle[SERIAL]
    deployed.unet("one").release()
    await running


async def test_a_replica_that_will_serve_no_more_is_unhealthy(deployed: Deployed) -> None:
    await deployed.replica.check_health()
    (version,) = deployed.replica._catalog.versions
    version.state, version.reason = State.FAILED, "model emoji: its engine failed 3 times in a row, and again"
    with pytest.raises(Unavailable, match="failed 3 times"):
        await deployed.replica.check_health()


async def test_what_only_the_door_may_say_is_not_heard_from_clients(deployed: Deployed) -> None:
    async with grpc.aio.insecure_channel(deployed.target) as channel:
        stub = pb_grpc.MezzotintStub(channel)
        forged = ((ROWS, "many"), (SECONDS, "x"))
        call = stub.Generate(pb.GenerateRequest(steps=2), metadata=forged)
        assert len([event async for event in call]) == 4
        assert len((await stub.ListModels(pb.ListModelsRequest(), metadata=forged)).models) == 1


@pytest.mark.parametrize("method", ["mezzotint.v1.Mezzotint/ListModels", "grpc.health.v1.Health/Check"])
async def test_bytes_that_are_no_message_are_refused_by_their_status(deployed: Deployed, method: str) -> None:
    async with grpc.aio.insecure_channel(deployed.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="are no ") as refused:
            await channel.unary_unary(f"/{method}")(b"\xff\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
