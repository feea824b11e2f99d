"""Tensors that are almost, or not at all, what a model takes: each gets an answer, and none reaches an engine."""

import random
import struct
import time
from collections import Counter

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from mezzotint.engines.errors import InvalidRequest
from mezzotint.proto import kserve_pb2 as pb
from mezzotint.proto.mezzotint_pb2 import GenerateRequest
from mezzotint.server.convert import order_of
from mezzotint.server.kserve.memory import Regions
from mezzotint.server.kserve.tensors import INPUTS, read_inputs
from mezzotint.server.kserve.wire import arrays_of
from tests.server.kserve.conftest import Triton

NO_MEMORY = Regions(is_open=False, max_bytes=1000)
REFUSALS = {
    "INVALID_ARGUMENT",
    "NOT_FOUND",
    "FAILED_PRECONDITION",
    "DEADLINE_EXCEEDED",
}  # the last of a timeout of 2 µs
KINDS = ("BYTES", "INT32", "INT64", "UINT8", "FP32", "FP16", "BOOL", "", "INT32\n")


def message(**raw: tuple[str, list[int], bytes]) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name="fake")
    for name, (kind, shape, data) in raw.items():
        made.inputs.add(name=name, datatype=kind, shape=shape)
        made.raw_input_contents.append(data)
    return made


def text(value: bytes) -> bytes:
    return struct.pack("<I", len(value)) + value


@pytest.mark.parametrize(
    ("raw", "sentence"),
    [
        ({"PROMPT": ("INT32", [1], b"\0\0\0\0")}, r"input 'PROMPT': is 'INT32' \[1\]; must be BYTES \[1\]"),
        ({"PROMPT": ("BYTES", [], text(b"a") * 2)}, "has 10 bytes that are not the 1 elements"),
        ({"PROMPT": ("BYTES", [2], text(b"a") * 2)}, r"is 'BYTES' \[2\]; must be BYTES \[1\]"),
        ({"PROMPT": ("BYTES", [1], b"")}, "has 0 bytes that are not the 1 elements"),
        ({"PROMPT": ("BYTES", [1], b"\1\0\0")}, "has 3 bytes that are not"),
        ({"PROMPT": ("BYTES", [1], b"\xff\xff\xff\xffa")}, "has 5 bytes that are not"),
        ({"PROMPT": ("BYTES", [1], text(b"a") + b"x")}, "has 6 bytes that are not"),
        ({"PROMPT": ("BYTES", [-1], text(b"a"))}, r"is 'BYTES' \[-1\]"),
        ({"PROMPT": ("BYTES", [1] * 99, text(b"a"))}, r"is 'BYTES' \[1, 1, 1, 1, 1, 1, 1, 1, 1\]"),
        ({"STEPS": ("INT32", [1], b"\1\0\0")}, r"input 'STEPS': has 3 bytes for INT32 \[1\]; must be 4"),
        ({"STEPS": ("INT32", [2**62, 2**62], b"")}, "is 'INT32'"),
        ({"CACHE_SCHEDULE": ("INT32", [2**62], b"\1\0\0\0")}, "cache_schedule: has a length of 4611686018427387904"),
        ({"INIT_LATENTS": ("FP32", [1, 4, 8, 8], b"\0" * 1023)}, "has 1023 bytes for FP32"),
    ],
)
def test_bytes_that_are_not_what_their_shape_says_are_refused(
    raw: dict[str, tuple[str, list[int], bytes]], sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        arrays_of(message(**raw), NO_MEMORY, decoupled=False)


def test_contents_that_are_not_what_they_should_be_are_refused() -> None:
    for fill, sentence in (
        ({"int64_contents": [1]}, r"must have 1 values in int_contents; has 0, and int64_contents beside them"),
        ({"int_contents": [1, 2]}, "must have 1 values in int_contents; has 2"),
        ({"int_contents": [1], "bool_contents": [True]}, "has 1, and bool_contents beside them"),
    ):
        made = pb.ModelInferRequest()
        made.inputs.add(name="STEPS", datatype="INT32", shape=[1]).contents.MergeFrom(pb.InferTensorContents(**fill))
        with pytest.raises(InvalidRequest, match=sentence):
            arrays_of(made, NO_MEMORY, decoupled=False)


def test_raw_contents_are_one_for_each_input() -> None:
    few = message(PROMPT=("BYTES", [1], text(b"a")))
    few.inputs.add(name="STEPS", datatype="INT32", shape=[1])
    many = message(PROMPT=("BYTES", [1], text(b"a")))
    many.raw_input_contents.append(b"")
    twice = message(PROMPT=("BYTES", [1], text(b"a")))
    twice.inputs.add(name="PROMPT", datatype="BYTES", shape=[1])
    both = message(PROMPT=("BYTES", [1], text(b"a")))
    both.inputs[0].contents.bytes_contents.append(b"b")
    for made, sentence in (
        (few, "input 'STEPS': has no raw_input_contents"),
        (many, "raw_input_contents: are more than the inputs"),
        (twice, "input 'PROMPT': comes twice"),
        (both, "input 'PROMPT': has contents beside its bytes"),
    ):
        with pytest.raises(InvalidRequest, match=sentence):
            arrays_of(made, NO_MEMORY, decoupled=False)


def test_a_list_as_long_as_a_message_is_refused_before_it_is_looked_into() -> None:
    made = message(PROMPT=("BYTES", [1], text(b"a")), CACHE_SCHEDULE=("INT32", [10_000_000], bytes(40_000_000)))
    with pytest.raises(InvalidRequest, match="cache_schedule: has a length of 10000000; the limit is 4096"):
        read_inputs(arrays_of(made, NO_MEMORY, decoupled=False), (), decoupled=False)


def test_no_more_of_a_message_is_read_than_it_should_hold() -> None:
    schedule = np.zeros(1_000_000, np.int32)
    typed = message(PROMPT=("BYTES", [1], text(b"a")))
    typed.inputs.add(name="CACHE_SCHEDULE", datatype="INT32", shape=schedule.shape).contents.int_contents.extend(
        schedule
    )
    del typed.raw_input_contents[:]
    typed.inputs[0].contents.bytes_contents.append(b"a")
    zeros, ours = message(PROMPT=("BYTES", [1], bytes(64 << 20))), GenerateRequest(cache_schedule=schedule)
    began = time.process_time()
    with pytest.raises(InvalidRequest, match="has 67108864 bytes that are not the 1 elements"):
        arrays_of(zeros, NO_MEMORY, decoupled=False)
    with pytest.raises(InvalidRequest, match="cache_schedule: has a length of 1000000; the limit is 4096"):
        arrays_of(typed, NO_MEMORY, decoupled=False)
    with pytest.raises(InvalidRequest, match="cache_schedule: has a length of 1000000; the limit is 4096"):
        order_of(ours)
    assert time.process_time() - began < 1


def random_request(rng: random.Random) -> service_pb2.ModelInferRequest:
    """Return a request whose inputs are mostly well-formed; others have a wrong type, shape, length or name."""
    made = service_pb2.ModelInferRequest(model_name=rng.choice(("fake", "fake", "fake", "fake_stream", "x")))
    made.id = rng.choice(("", "1", "\n", "é" * 200))
    for name in ["PROMPT", *rng.sample([tensor.name for tensor in INPUTS], rng.randrange(4))]:
        tensor = next(tensor for tensor in INPUTS if tensor.name == name)
        kind = rng.choice([tensor.datatype] * 9 + [rng.choice(KINDS)])
        shape = [abs(dim) for dim in tensor.dims] if rng.random() < 0.9 else [rng.choice((0, 1, 2, -1, 2**62))] * 2
        data = text(rng.choice((b"a cat", b"", b"\xff", b"euler"))) if kind == "BYTES" else struct.pack("<q", 2)
        data = data[: {"INT32": 4, "FP32": 4}.get(kind)] if rng.random() < 0.9 else rng.randbytes(rng.randrange(9))
        name = name if rng.random() < 0.95 else rng.choice(("", "prompt", "X" * 500))
        given = made.inputs.add(name=name, datatype=kind, shape=shape)
        if rng.random() < 0.95:
            made.raw_input_contents.append(data)
        if rng.random() < 0.05:
            given.contents.int_contents.append(1)
        if rng.random() < 0.05:
            given.parameters["shared_memory_region"].string_param = "none"
            given.parameters["shared_memory_byte_size"].int64_param = rng.choice((-1, 4, 2**62))
    if rng.random() < 0.2:
        made.parameters[
            rng.choice(("priority", "timeout", "triton_enable_empty_final_response", "x"))
        ].int64_param = rng.choice((-1, 0, 2, 2**62))
    if rng.random() < 0.2:
        made.outputs.add(name=rng.choice(("IMAGES", "FILES", "STEP", "", "é")))
    return made


@pytest.mark.parametrize("num_messages", [300, pytest.param(20_000, marks=pytest.mark.slow)])
async def test_each_malformed_request_is_answered_and_the_server_stays(host: Triton, num_messages: int) -> None:
    rng = random.Random(num_messages)
    stub = GRPCInferenceServiceStub(host.served.channel)
    answered: Counter[str] = Counter()
    for _ in range(num_messages):
        request = random_request(rng)
        try:
            await stub.ModelInfer(request, timeout=60)
            answered["OK"] += 1
        except grpc.aio.AioRpcError as error:
            sentence = error.details() or ""
            if error.code().name not in {*REFUSALS, "UNIMPLEMENTED"} or not sentence or "\n" in sentence:
                pytest.fail(f"{request} was answered with {error.code()}: {sentence!r}")
            answered[error.code().name] += 1
    assert answered.total() == num_messages
    assert answered["OK"] > num_messages // 50
    assert answered["INVALID_ARGUMENT"] > num_messages // 4
    assert host.served.core.num_open == 0


async def test_bytes_that_are_no_message_are_refused_in_a_sentence(host: Triton) -> None:
    infer = host.served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    stream = host.served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.aio.AioRpcError, match="the request's 4 bytes are no inference") as refused:
        await infer(b"\xff\xff\xff\xff")
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (answer,) = [answer async for answer in stream(iter([b"\xff\xff\xff\xff"]))]
    assert b"are no inference.ModelInferRequest" in answer
    with pytest.raises(grpc.aio.AioRpcError, match=r"are no inference\.ModelConfigRequest"):
        await host.served.channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(b"\xff")
