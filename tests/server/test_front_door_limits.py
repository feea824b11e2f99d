"""What one request may ask for and what each client may over time, and the refusals' hints, over real sockets."""

import asyncio

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from mezzotint import AsyncClient
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig
from mezzotint.server.limits import RequestLimits
from mezzotint.server.rates import RateLimit
from tests.server.conftest import Running, Start, entered, eventually, refused
from tests.server.front_door import audit, paint, refusal
from tests.server.tokens_file import TokensFile

CODE = grpc.StatusCode


async def test_a_message_that_is_too_large_is_refused_and_one_that_is_far_too_large_is_never_read(
    start: Start, audited: pytest.LogCaptureFixture
) -> None:
    served = await start(access=AccessConfig(max_request_bytes=10_000))
    error = await refused(served, pb.GenerateRequest(prompt="a" * 15_000).SerializeToString())
    assert error.code() is CODE.INVALID_ARGUMENT
    assert error.details() == "the request has 15003 bytes; this server takes 10000, send smaller arrays"
    error = await refused(served, b"\x1a" * 30_000)
    assert (error.code(), error.details()) == (
        CODE.RESOURCE_EXHAUSTED,
        "SERVER: Received message larger than max (30000 vs. 20000)",
    )
    assert audit(audited) == ["client=address:127.0.0.1 code=INVALID_ARGUMENT reason=InvalidRequest"]
    assert await paint(served, "", latents=np.ones((1, 4, 8, 8), np.float32)) == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"steps": 11}, "steps=11: this server allows at most 10 steps; ask for fewer"),
        ({"num_images": 3}, "num_images=3: this server allows at most 2 pictures a request; ask for fewer"),
        ({"width": 64}, "width × height = 64 × 32: this server allows at most 2000 pixels a picture; ask for fewer"),
    ],
)
async def test_a_request_over_a_limit_is_refused_before_anything_is_encoded(
    start: Start, options: dict[str, int], sentence: str, audited: pytest.LogCaptureFixture
) -> None:
    served = await start(access=AccessConfig(limits=RequestLimits(max_steps=10, max_pixels=2000, max_images=2)))
    error = await refusal(served, request_id="mine", **options)
    assert (error.code, error.message) == (CODE.INVALID_ARGUMENT, sentence)
    assert "refused request=mine client=address:127.0.0.1 code=INVALID_ARGUMENT reason=InvalidRequest" in audited.text
    assert not any(engine.calls for engine in served.engines.values())
    assert await paint(served, "", steps=10, num_images=2) == 2


async def test_a_client_over_its_rate_is_told_when_to_come_again_and_comes_in_then(
    start: Start, tokens: TokensFile, audited: pytest.LogCaptureFixture
) -> None:
    alice, bob = tokens.add("alice"), tokens.add("bob")
    served = await start(access=AccessConfig(tokens=tokens.path, rate=RateLimit(100.0, 40.0)))
    assert await paint(served, alice, steps=10, num_images=2) == 2
    error = await refusal(served, token=alice, steps=10)
    assert error.code is CODE.RESOURCE_EXHAUSTED
    assert error.message.startswith("the request runs 20 rows of the UNet, and this client has ")
    assert error.retry_after_ms is not None
    assert 0 < error.retry_after_ms <= 200
    assert audit(audited) == ["client=token:alice code=RESOURCE_EXHAUSTED reason=RateLimited"]
    assert await paint(served, bob, steps=10, num_images=2) == 2
    await asyncio.sleep(error.retry_after_ms / 1e3)
    assert await paint(served, alice, steps=10) == 1


async def test_a_refusal_by_rate_has_the_hints_of_a_full_queue(start: Start) -> None:
    served = await start(access=AccessConfig(rate=RateLimit(1.0, 10.0)))
    await paint(served, "", steps=6)
    error = await refused(served, pb.GenerateRequest(steps=5, guidance=1.0).SerializeToString())
    metadata = dict(error.trailing_metadata() or ())
    retry = RetryInfo()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(retry)
    hint = int(metadata["grpc-retry-pushback-ms"])
    assert 6000 < hint <= 7000
    assert retry.retry_delay.ToMilliseconds() == hint


async def test_what_a_full_queue_refuses_costs_its_client_nothing(start: Start) -> None:
    served = await start(access=AccessConfig(rate=RateLimit(0.001, 25.0)), max_queue_size=2, max_started_images=1)
    served.unet.hold()
    async with AsyncClient(served.target) as client:
        first = asyncio.ensure_future(client.generate("a cat", steps=4, guidance=1.0))
        await entered(served)
        waiting = asyncio.ensure_future(client.generate("a cat", steps=1, guidance=1.0))
        await eventually(lambda: served.core.num_open == 2)
        for _ in range(3):
            two_more = asyncio.ensure_future(refusal(served, steps=4, num_images=2))  # 16 rows
            await eventually(lambda: served.core.num_open == 3)
            await asyncio.sleep(0.05)  # they are tokenised
            served.unet.step()
            assert (await two_more).message.startswith("the queue is full")
        served.unet.release()
        await asyncio.gather(first, waiting)
    assert await paint(served, "", steps=10) == 1  # all of the 20 rows that are left
    assert (await refusal(served, steps=1)).code is CODE.RESOURCE_EXHAUSTED


async def test_a_sentence_that_repeats_a_long_field_is_cut_and_still_arrives(served: Running) -> None:
    for request in (
        pb.GenerateRequest(sampler="ü" * 250),
        pb.GenerateRequest(cache_schedule=[7] * 4000),
    ):
        error = await refused(served, request.SerializeToString())
        assert error.code() is CODE.INVALID_ARGUMENT
        assert len((error.details() or "").encode()) < 2100
    error = await refused(served, pb.GenerateRequest(model="a" * 300).SerializeToString())
    assert error.details() == "model: has a length of 300; the limit is 256, shorten it"
    error = await refused(served, pb.GenerateRequest(latents=pb.Tensor(shape=[2] * 100_000)).SerializeToString())
    assert error.details() == "latents: has 100000 axes; the limit is 4"
