"""The numbers that Prometheus reads are those of what really happened."""

import asyncio
import json
import time
from pathlib import Path
from typing import cast

import grpc
import pytest

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.image import Image, Stage
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig
from mezzotint.server.config import MetricsConfig, WatchConfig
from mezzotint.server.metrics import Metrics
from mezzotint.server.observer import Call
from mezzotint.server.tokens import new_token
from tests.server.conftest import Start, entered, eventually, raw, refused
from tests.server.faults import deaf_client
from tests.server.scraping import scrape

WATCH = WatchConfig(metrics=MetricsConfig(port=0))


async def test_requests_images_steps_and_rows_are_counted_exactly(start: Start) -> None:
    served = await start(watch=WATCH)
    await served.client.generate("a cat", steps=3, guidance=5.0)
    await served.client.generate("a dog", steps=4, guidance=1.0, num_images=2)
    await eventually(lambda: served.core.num_open == 0)
    seen = await scrape(served.metrics_port)
    assert seen("mezzotint_requests_total", code="OK") == 2
    assert seen("mezzotint_requests_total", code="OK", model="fake") == 2
    assert seen("mezzotint_images_total", outcome="finished") == 3
    assert seen("mezzotint_step_seconds_count", variant="full") == len(served.unet.calls) == 3 + 4
    assert seen("mezzotint_step_rows_sum", variant="full") == sum(served.unet.calls) == 3 * 2 + 4 * 2
    assert seen("mezzotint_step_rows_bucket", variant="full", le="1.0") == 0
    assert seen("mezzotint_step_rows_bucket", variant="full", le="2.0") == 7
    assert seen("mezzotint_request_seconds_count") == seen("mezzotint_queue_seconds_count") == 2
    for stage in ("encode", "denoise", "decode"):
        assert seen("mezzotint_stage_seconds_count", stage=stage) == 2
    assert seen("mezzotint_requests_open") == seen("mezzotint_images_waiting") == seen("mezzotint_images_started") == 0


async def test_shallow_and_full_calls_are_counted_apart(start: Start) -> None:
    served = await start(watch=WATCH, step_cache=True)
    await served.client.generate("a cat", steps=6, cache_interval=3)
    seen = await scrape(served.metrics_port)
    assert seen("mezzotint_step_seconds_count", variant="full") == 2
    assert seen("mezzotint_step_seconds_count", variant="shallow") == 4


async def test_seconds_are_those_that_passed(start: Start) -> None:
    served = await start(watch=WATCH, max_started_images=1)
    served.unet.hold()
    began = time.monotonic()
    first = asyncio.ensure_future(served.client.generate("a cat", steps=1))
    await entered(served)
    second = asyncio.ensure_future(served.client.generate("a cat", steps=1))
    await eventually(lambda: served.core.num_waiting == 1)
    seen = await scrape(served.metrics_port)
    assert seen("mezzotint_images_waiting") == 1
    assert seen("mezzotint_images_started") == 1
    assert seen("mezzotint_requests_open") == 2
    await asyncio.sleep(0.3)
    served.unet.release()
    await asyncio.gather(first, second)
    passed = time.monotonic() - began
    await eventually(lambda: served.core.num_open == 0)
    seen = await scrape(served.metrics_port)
    for name in ("mezzotint_step_seconds_sum", "mezzotint_queue_seconds_sum", "mezzotint_engine_seconds_total"):
        labels = {"variant": "full"} if "step" in name else {"stage": "denoise"} if "engine" in name else {}
        value = seen(name, **labels)
        assert value is not None
        assert 0.3 <= value <= passed, name
    assert seen("mezzotint_step_seconds_bucket", variant="full", le="0.2") == 1
    assert seen("mezzotint_queue_seconds_bucket", le="0.2") == 1


async def test_every_way_to_end_has_its_code_and_invented_models_have_no_name(start: Start) -> None:
    served = await start(watch=WATCH, max_queue_size=1, max_started_images=1)
    await refused(served, b"\xff\xff")
    await refused(served, pb.GenerateRequest(prompt="a", model="../made-up").SerializeToString())
    await refused(served, pb.GenerateRequest(prompt="a", height=8).SerializeToString())
    served.unet.failures = 1
    await refused(served, pb.GenerateRequest(prompt="a cat").SerializeToString())
    await entered(served)

    served.unet.hold()
    late = asyncio.ensure_future(served.client.generate("a cat", steps=50, timeout=0.3))
    await entered(served)
    waiting = asyncio.ensure_future(served.client.generate("a cat"))
    await eventually(lambda: served.core.num_waiting == 1)
    with pytest.raises(MezzotintClientError) as full:
        await served.client.generate("a cat")
    assert full.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    waiting.cancel()
    with pytest.raises(MezzotintClientError):
        await late
    served.unet.release()
    await eventually(lambda: served.core.num_open == 0)

    seen = await scrape(served.metrics_port)
    codes = {
        (dict(labels)["model"], dict(labels)["code"]): value
        for (name, labels), value in seen.values.items()
        if name == "mezzotint_requests_total"
    }
    assert codes == {
        ("", "INVALID_ARGUMENT"): 1,
        ("", "NOT_FOUND"): 1,
        ("fake", "FAILED_PRECONDITION"): 1,
        ("fake", "INTERNAL"): 1,
        ("fake", "DEADLINE_EXCEEDED"): 1,
        ("fake", "RESOURCE_EXHAUSTED"): 1,
        ("fake", "CANCELLED"): 1,
    }
    assert seen("mezzotint_images_total", outcome="failed") == 1
    gone = [seen("mezzotint_images_total", outcome=outcome) or 0 for outcome in ("expired", "cancelled")]
    assert sum(gone) >= 1  # whichever of client and server is first to see that the deadline has passed
    assert seen("mezzotint_images_total", outcome="finished") is None


async def test_strangers_without_a_token_are_counted(start: Start, tmp_path: Path) -> None:
    token, line = new_token("alice")
    (tmp_path / "tokens").write_text(line, encoding="utf-8")
    served = await start(watch=WATCH, access=AccessConfig(tokens=tmp_path / "tokens"))
    for given in ("", new_token("alice")[0]):
        async with AsyncClient(served.target, token=given) as client:
            with pytest.raises(MezzotintClientError):
                await client.generate("a cat", steps=1)
    async with AsyncClient(served.target, token=token) as client:
        await client.generate("a cat", steps=1)
    seen = await scrape(served.metrics_port)
    assert seen("mezzotint_requests_total", model="", code="UNAUTHENTICATED") == 2
    assert seen("mezzotint_requests_total", model="fake", code="OK") == 1


async def test_caches_tell_what_they_had(start: Start) -> None:
    served = await start(watch=WATCH)
    for steps in (3, 3, 4, 3):
        await served.client.generate("a cat", steps=steps)
    seen = await scrape(served.metrics_port)
    assert seen("mezzotint_cache_misses_total", cache="plans") == 2
    assert seen("mezzotint_cache_hits_total", cache="plans") == 2
    assert seen("mezzotint_cache_misses_total", cache="text") == 2  # the prompt and the empty one
    assert seen("mezzotint_cache_hits_total", cache="text") == 6


async def test_the_process_and_the_version_are_there(start: Start) -> None:
    served = await start(watch=WATCH)
    seen = await scrape(served.metrics_port)
    resident = seen("process_resident_memory_bytes")
    assert resident is not None
    assert resident > 10 << 20
    before = seen("process_open_fds")
    assert before is not None
    files = [Path("/dev/null").open("rb") for _ in range(20)]  # noqa: SIM115
    after = (await scrape(served.metrics_port))("process_open_fds")
    for file in files:
        file.close()
    assert after is not None
    assert after >= before + 15
    assert [name for name, _ in seen.values if name == "mezzotint_build_info"]


async def test_two_servers_in_one_process_count_apart(start: Start) -> None:
    one, other = await start(watch=WATCH), await start(watch=WATCH)
    await one.client.generate("a cat", steps=2)
    assert (await scrape(one.metrics_port))("mezzotint_requests_total", code="OK") == 1
    assert (await scrape(other.metrics_port))("mezzotint_requests_total", code="OK") is None


async def test_names_are_as_prometheus_wants_them(start: Start) -> None:
    served = await start(watch=WATCH)
    await served.client.generate("a cat", steps=2)
    seen = await scrape(served.metrics_port)
    ours = {name: kind for name, kind in seen.types.items() if not name.endswith("_created")}
    assert all(name.startswith(("mezzotint_", "process_")) for name in ours)
    assert not [name for name in ours if name.endswith(("_ms", "_mb", "_total", "_count"))]
    assert all(name.endswith(("_seconds", "_rows")) for name, kind in ours.items() if kind == "histogram")


def test_counting_a_step_costs_less_than_50_microseconds() -> None:
    metrics = Metrics(lambda: ())
    images = cast("tuple[Image, ...]", tuple(object() for _ in range(8)))
    call = Call("fake", Stage.DENOISE, "full", images, 16, 1.0, 1.1)
    rounds = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            metrics.called(call)
        rounds.append((time.perf_counter() - began) / 2000)
    assert min(rounds) < 50e-6, json.dumps(rounds)


async def test_raw_requests_are_streamed_as_before(start: Start) -> None:
    served = await start()
    assert served.metrics_port is None
    events = await raw(served, pb.GenerateRequest(prompt="a cat", steps=2).SerializeToString())
    assert [event.WhichOneof("event") for event in events] == ["accepted", "progress", "progress", "image"]


async def test_a_client_that_leaves_its_events_unread_is_counted_by_what_it_is_told(start: Start) -> None:
    served = await start(watch=WATCH, access=AccessConfig(unread_seconds=0.1))
    with deaf_client(served.target, pb.GenerateRequest(prompt="a cat", steps=2).SerializeToString()):
        async with asyncio.timeout(10):
            while (await scrape(served.metrics_port))("mezzotint_requests_total", code="RESOURCE_EXHAUSTED") is None:
                await asyncio.sleep(0.02)
