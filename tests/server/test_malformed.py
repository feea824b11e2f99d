"""Messages that are almost, or not at all, requests: each gets an answer, and the server stays as it was."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig
from mezzotint.server.convert import tensor_of
from mezzotint.server.limits import RequestLimits
from tests.server.conftest import Running, Start, raw

AT_ONCE = 16
MAX_GROWTH_BYTES = 16 << 20
LIMITS = RequestLimits(max_steps=4, max_pixels=64 * 64, max_images=2)
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,  # bits of the model's name
    grpc.StatusCode.FAILED_PRECONDITION,  # a size that the bundle was not built for
}
NOISE = tensor_of(np.ones((1, 4, 8, 8), np.float32))
STATES = tensor_of(np.ones((8, 4), np.float32))
REQUESTS = [
    request.SerializeToString()
    for request in (
        pb.GenerateRequest(prompt="a red cat", steps=2, seed=7, guidance=3.0, sampler="euler_a", model="fake"),
        pb.GenerateRequest(prompt="a dog", steps=3, width=64, height=40, num_images=2, image_format=2),
        pb.GenerateRequest(steps=1, latents=NOISE, prompt_states=STATES, negative_prompt_states=STATES, guidance=2.0),
        pb.GenerateRequest(prompt="on", steps=3, custom_sigmas=[9.0, 3.0, 1.0], sampler="heun", return_latents=True),
        pb.GenerateRequest(prompt="[a|(cat:1.2)] BREAK [dog:red:1]", steps=2, negative_prompt="[[hat]]", clip_skip=1),
        pb.GenerateRequest(prompt="hat", steps=4, cache_schedule=[0, 2], guidance_start=0.2, guidance_end=0.7),
        pb.GenerateRequest(prompt="a", steps=2, sigmas="karras", spacing="trailing", eta=0.5, preview_every=1),
    )
]


def malformed(rng: random.Random) -> bytes:
    """Return a request with something done to it, or fields at random, or noise."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.randbytes(rng.randrange(200))
    if kind == 1:
        return b"".join(_field(rng) for _ in range(rng.randrange(1, 12)))
    data = bytearray(rng.choice(REQUESTS))
    for _ in range(rng.randrange(1, 4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                del data[place:]
            case 1:
                data[place:place] = rng.randbytes(rng.randrange(1, 12))
            case 2:
                data[place:place] = _field(rng)
            case 3:
                data += rng.choice(REQUESTS)  # the later field is the one that holds
            case _:
                if place < len(data):
                    data[place] ^= 1 << rng.randrange(8)
    return bytes(data)


def _field(rng: random.Random) -> bytes:
    """Return a field of any number that there is, and some that there are not, of any wire type."""
    tag = _varint(rng.randrange(1, 40) << 3 | rng.choice((0, 1, 2, 2, 5, 3, 4, 7)))
    content = rng.choice((b"", b"a", b"\xff\xfe", rng.randbytes(rng.randrange(40)), b"\x00" * 1000))
    value = (
        _varint(rng.choice((0, 1, 2, 63, 2**31, 2**63, 2**64 - 1))),
        rng.randbytes(8),
        _varint(len(content) + rng.choice((0, 0, 0, 1, 2**31))) + content,
        rng.randbytes(4),
    )
    return tag + rng.choice(value)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


async def answer(served: Running, data: bytes) -> str:
    """Return how a message was answered; anything but pictures and refusals is a failure."""
    try:
        events = await raw(served, data, timeout=60)
    except grpc.aio.AioRpcError as error:
        sentence = error.details() or ""
        if error.code() not in REFUSALS or not sentence or "\n" in sentence:
            pytest.fail(f"{data!r} was answered with {error.code()}: {sentence!r}")
        return error.code().name
    assert events[0].WhichOneof("event") == "accepted"
    num_images = sum(event.WhichOneof("event") == "image" for event in events)
    assert num_images == len(events[0].accepted.seeds), data
    return "OK"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much memory is resident")
@pytest.mark.parametrize("num_messages", [400, pytest.param(20_000, marks=pytest.mark.slow)])
async def test_each_malformed_message_is_answered_and_memory_stays(start: Start, num_messages: int) -> None:
    served = await start(access=AccessConfig(limits=LIMITS), step_cache=True)
    rng = random.Random(num_messages)
    answers: Counter[str] = Counter()

    async def send(numbers: Iterator[int]) -> None:
        for _ in numbers:
            answers[await answer(served, malformed(rng))] += 1

    async def send_all(number: int) -> None:
        numbers = iter(range(number))
        await asyncio.gather(*(send(numbers) for _ in range(AT_ONCE)))

    await send_all(num_messages // 4)
    before = resident_bytes()
    await send_all(num_messages - num_messages // 4)
    assert resident_bytes() - before < MAX_GROWTH_BYTES
    assert answers.total() == num_messages
    assert answers["OK"] > num_messages // 50
    assert answers["INVALID_ARGUMENT"] > num_messages // 4
    assert served.core.num_open == 0
    assert len((await served.client.generate("a cat", steps=2, num_images=2)).files) == 2
