"""The front door, limits, rates, the audit log and metrics hold for this protocol as for our own."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from mezzotint.server.access import AccessConfig
from mezzotint.server.config import MetricsConfig, WatchConfig
from mezzotint.server.limits import RequestLimits
from mezzotint.server.rates import RateLimit
from tests.server.front_door import audit
from tests.server.kserve.conftest import Begin, inputs
from tests.server.scraping import scrape
from tests.server.tokens_file import TokensFile


async def test_every_call_needs_the_token_that_is_asked_for(
    begin: Begin, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice = tokens.add("alice")
    host = await begin(access=AccessConfig(tokens=tokens.path))
    for call in (host.client.is_server_live(), host.client.infer("fake", inputs()), host.client.load_model("fake")):
        code, sentence = await host.refusal(call)
        assert code == "UNAUTHENTICATED"
        assert sentence.startswith("this server asks for a token")
    assert not host.served.unet.calls
    headers = {"authorization": f"Bearer {alice}"}
    await host.client.infer("fake", inputs(STEPS=1), headers=headers)
    await host.refusal(host.client.infer("fake", inputs(STEPS=0), headers=headers))
    assert audit(audited)[-1] == "client=token:alice code=INVALID_ARGUMENT reason=InvalidRequest(steps)"

    async def one() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "fake_stream", "inputs": inputs(SAMPLES=0)}

    ((_, error),) = [answer async for answer in host.client.stream_infer(one(), headers=headers)]
    assert error is not None
    assert audit(audited)[-1] == "client=token:alice code=INVALID_ARGUMENT reason=InvalidRequest(num_images)"
    with pytest.raises(grpc.aio.AioRpcError, match="this server asks for a token"):
        _ = [answer async for answer in host.client.stream_infer(one())]


async def test_only_an_operators_token_loads_and_unloads(begin: Begin, tokens: TokensFile) -> None:
    headers = {"authorization": f"Bearer {tokens.add('alice')}"}
    host = await begin(access=AccessConfig(tokens=tokens.path))
    for call in (host.client.load_model("fake", headers=headers), host.client.unload_model("fake", headers=headers)):
        code, sentence = await host.refusal(call)
        assert code == "PERMISSION_DENIED"
        assert sentence.startswith("alice may not load or unload models")
    assert await host.client.is_model_ready("fake", headers=headers)


async def test_limits_and_rates_hold(begin: Begin) -> None:
    access = AccessConfig(limits=RequestLimits(max_steps=4, max_images=2), rate=RateLimit(0.001, 16.0))
    host = await begin(access=access)
    code, sentence = await host.refusal(host.client.infer("fake", inputs(STEPS=5)))
    assert (code, sentence) == ("INVALID_ARGUMENT", "steps=5: this server allows at most 4 steps; ask for fewer")
    await host.client.infer("fake", inputs(STEPS=4, SAMPLES=2))  # 16 rows
    code, sentence = await host.refusal(host.client.infer("fake", inputs(STEPS=4)))
    assert code == "RESOURCE_EXHAUSTED"
    assert "this client has 0 left of 16" in sentence


async def test_a_message_that_is_too_large_is_refused_unread(begin: Begin) -> None:
    host = await begin(access=AccessConfig(max_request_bytes=10_000))
    for num_values in (4000, 100_000):  # refused by us, and by gRPC before it is read
        noise = np.zeros((1, 1, 1, num_values), np.float32)
        code, _ = await host.refusal(host.client.infer("fake", inputs(INIT_LATENTS=noise)))
        assert code == {4000: "INVALID_ARGUMENT", 100_000: "RESOURCE_EXHAUSTED"}[num_values]
    assert host.served.core.num_open == 0


async def test_calls_are_counted_logged_and_have_an_id(begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = await begin(watch=WatchConfig(MetricsConfig(port=0)))
    await host.client.infer("fake", inputs(STEPS=2), request_id="mine")
    stub = GRPCInferenceServiceStub(host.served.channel)
    call = stub.ModelInfer(service_pb2.ModelInferRequest(model_name="fake", id="a b"))
    request_id = dict(await call.initial_metadata())["request-id"]
    assert len(request_id) == 32  # what cannot be logged gets an id of ours
    assert dict(await call.trailing_metadata())["request-id"] == request_id
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("request mine.")]
    assert len(lines) == 1
    assert "model=fake images=1 steps=2 outcome=finished" in lines[0]
    seen = await scrape(host.served.metrics_port)
    assert seen("mezzotint_requests_total", code="OK", model="fake") == 1
    assert seen("mezzotint_requests_total", code="INVALID_ARGUMENT", model="") == 1


async def test_requests_of_both_protocols_share_calls(begin: Begin) -> None:
    host = await begin()
    host.served.unet.hold()
    first = asyncio.create_task(host.client.infer("fake", inputs(STEPS=6, SEED=1)))
    assert await asyncio.to_thread(host.served.unet.entered.acquire, timeout=10)
    second = asyncio.create_task(host.served.client.generate("dog", steps=3, guidance=2.0))
    await asyncio.sleep(0.3)
    host.served.unet.release()
    await asyncio.gather(first, second)
    assert max(host.served.unet.calls) == 4
