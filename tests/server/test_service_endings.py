"""How requests end early: cancelled, too late, refused by a full queue, failed, or with the server."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mezzotint import MezzotintClientError
from mezzotint.engines.component import Component
from mezzotint.engines.variants import FULL
from tests.server.conftest import Running, Start, entered, eventually
from tests.server.front_door import audit

TEXT = (Component.TEXT_ENCODER, FULL)
HEALTH = health_pb2.HealthCheckResponse


async def test_a_cancelled_request_leaves_at_the_next_step_and_others_go_on(served: Running) -> None:
    served.unet.hold()
    gone = served.client.stream("a cat", steps=50)
    task = asyncio.ensure_future(_collect(gone))
    await entered(served)
    other = asyncio.ensure_future(served.client.generate("dog", steps=3))
    await eventually(lambda: served.core.num_open == 2)
    await asyncio.sleep(0.2)
    served.unet.step()
    await entered(served)  # both are in the second call
    gone.cancel()
    with pytest.raises(MezzotintClientError, match="the request was cancelled"):
        await task
    await asyncio.sleep(0.2)
    served.unet.release()
    await other
    assert served.unet.calls == [2, 4, 2, 2]
    await eventually(lambda: served.core.num_open == 0)


async def _collect(stream: Any) -> list[Any]:
    return [event async for event in stream]


async def test_a_deadline_ends_the_request_and_its_rows_leave(served: Running) -> None:
    served.unet.hold()
    with pytest.raises(MezzotintClientError, match="the deadline passed") as failure:
        await served.client.generate("a cat", steps=50, timeout=0.4)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    served.unet.release()
    await eventually(lambda: served.core.num_open == 0)
    assert len(served.unet.calls) <= 2


async def test_a_full_queue_refuses_with_a_retry_hint(start: Start) -> None:
    served = await start(max_queue_size=2, max_started_images=1)
    served.unet.hold()
    first = asyncio.ensure_future(served.client.generate("a", steps=2))
    await entered(served)
    waiting = [asyncio.ensure_future(served.client.generate("a", steps=2)) for _ in range(2)]
    await eventually(lambda: served.core.num_open == 3)
    await asyncio.sleep(0.2)
    with pytest.raises(MezzotintClientError, match="the queue is full: ") as refusal:
        await served.client.generate("a", steps=2)
    assert refusal.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refusal.value.retry_after_ms is not None
    assert refusal.value.retry_after_ms > 0
    served.unet.release()
    assert [len(result.files) for result in await asyncio.gather(first, *waiting)] == [1, 1, 1]
    assert (await served.client.generate("a", steps=2)).files


async def test_under_a_burst_every_request_ends_exactly_once(start: Start) -> None:
    served = await start(max_queue_size=8, max_started_images=8)

    async def ask(i: int) -> str:
        try:
            await served.client.generate("a cat", steps=1 + i % 5, guidance=float(i % 3), num_images=1 + i % 2, seed=i)
        except MezzotintClientError as error:
            return error.code.name
        return "OK"

    outcomes = await asyncio.gather(*(ask(i) for i in range(60)))
    assert set(outcomes) <= {"OK", "RESOURCE_EXHAUSTED"}
    assert outcomes.count("OK") >= 4
    assert served.core.num_open == 0


async def test_an_engine_that_fails_fails_its_batch_and_the_server_lives_on(
    served: Running, caplog: pytest.LogCaptureFixture
) -> None:
    served.unet.failures = 1
    with pytest.raises(MezzotintClientError) as failure:
        await served.client.generate("a cat", request_id="unlucky")
    assert failure.value.code is grpc.StatusCode.INTERNAL
    assert failure.value.message == "request unlucky: an engine failed; the server's log says why under that id"
    assert failure.value.request_id == "unlucky"
    assert any("request unlucky" in record.getMessage() and record.exc_info for record in caplog.records)
    assert (await served.client.generate("a cat", steps=1)).files


async def test_an_error_of_ours_is_internal_with_the_request_id_and_without_a_traceback(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(served.core.model, "warnings", lambda request: 1 / 0)
    with pytest.raises(MezzotintClientError) as failure:
        await served.client.generate("a cat", request_id="bug")
    assert failure.value.code is grpc.StatusCode.INTERNAL
    assert failure.value.message == "request bug: the server failed; its log says why under that id"
    assert "ZeroDivisionError" in caplog.text


async def test_each_request_has_one_line_in_the_log(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "mezzotint.server.endings")
    await served.client.generate("a cat", steps=2, request_id="mine")
    (line,) = [record.getMessage() for record in caplog.records if "mine" in record.getMessage()]
    assert line.startswith("request mine: model=fake images=1 steps=2 outcome=finished queue_ms=")
    assert all(f"{stage}_ms=" in line for stage in ("queue", "encode", "denoise", "decode", "total"))


async def test_a_stopping_server_finishes_what_it_accepted_and_refuses_the_rest(served: Running) -> None:
    served.unet.hold()
    accepted = asyncio.ensure_future(served.client.generate("a cat", steps=3))
    await entered(served)
    stopped = asyncio.ensure_future(served.server.stop(10.0))
    health = health_pb2_grpc.HealthStub(served.channel)
    while (await health.Check(health_pb2.HealthCheckRequest())).status != HEALTH.NOT_SERVING:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    with pytest.raises(MezzotintClientError, match="model fake: the server is stopping") as refusal:
        await served.client.generate("dog")
    assert refusal.value.code is grpc.StatusCode.UNAVAILABLE
    served.unet.release()
    assert (await accepted).files
    assert await stopped


async def test_a_drain_that_takes_too_long_ends_what_is_left_as_unavailable(served: Running) -> None:
    served.unet.hold()
    task = asyncio.ensure_future(served.client.generate("a cat", steps=3))
    await entered(served)
    stopped = asyncio.ensure_future(served.server.stop(0.1))
    with pytest.raises(MezzotintClientError, match="the server was stopped before the request was done") as failure:
        await task
    assert failure.value.code is grpc.StatusCode.UNAVAILABLE
    served.unet.release()
    assert not await stopped


async def test_a_failing_engine_refuses_nothing_even_before_the_first_event(
    served: Running, audited: pytest.LogCaptureFixture
) -> None:
    served.engines[TEXT].failures = 10**6
    calls = [served.client.generate("a cat", steps=1) for _ in range(20)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(f, MezzotintClientError) and f.code is grpc.StatusCode.INTERNAL for f in failures)
    assert audit(audited) == []
