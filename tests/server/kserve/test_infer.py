"""``ModelInfer`` and ``ModelStreamInfer`` as tritonclient calls them, on fake engines over a real socket."""

import asyncio
import queue
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from tritonclient.utils import InferenceServerException

from tests.server.conftest import entered, eventually
from tests.server.kserve.conftest import Begin, Triton, inputs, outputs

FINAL = "triton_final_response"


async def asked(*requests: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for request in requests:
        yield request


async def answers(host: Triton, *requests: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Return what a stream answers to some requests: results and errors."""
    return [answer async for answer in host.client.stream_infer(asked(*requests))]


def names(result: triton.InferResult) -> list[str]:
    return [output.name for output in result.get_response().outputs]


def is_final(result: triton.InferResult) -> bool:
    return result.get_response().parameters[FINAL].bool_param


async def test_a_picture_has_the_pixels_that_our_own_client_gets(host: Triton) -> None:
    result = await host.client.infer(
        "fake",
        inputs("a red cat", NEGATIVE_PROMPT="hat", STEPS=3, SEED=5, GUIDANCE_SCALE=3.3, SAMPLES=2, SCHEDULER="euler_a"),
        request_id="any thing/1",
    )
    own = await host.served.client.generate(
        "a red cat", negative_prompt="hat", steps=3, seed=5, guidance=3.3, num_images=2, sampler="euler_a"
    )
    np.testing.assert_array_equal(result.as_numpy("IMAGES"), [np.asarray(image) for image in own.images])
    assert result.as_numpy("SEEDS").tolist() == [5, 6]
    assert result.as_numpy("FLAGGED").tolist() == [-1, -1]
    spent = result.as_numpy("TIMINGS_MS")
    assert spent.shape == (2, 5)
    assert (spent[:, 4] >= spent[:, 2]).all()
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("any thing/1", "fake", "1")
    assert names(result) == ["IMAGES", "SEEDS", "FLAGGED", "TIMINGS_MS"]


async def test_files_are_those_of_our_own_client_byte_by_byte(host: Triton) -> None:
    for kind in ("png", "jpeg"):
        result = await host.client.infer(
            "fake",
            inputs("a cat", STEPS=2, SEED=3, GUIDANCE_SCALE=3.3, IMAGE_FORMAT=kind),
            outputs=outputs("FILES", "LATENTS"),
        )
        own = await host.served.client.generate(
            "a cat", steps=2, seed=3, guidance=3.3, image_format=kind, return_latents=True
        )
        assert result.as_numpy("FILES").tolist() == own.files
        np.testing.assert_array_equal(result.as_numpy("LATENTS")[0], own.pictures[0].latents)
        assert names(result) == ["FILES", "LATENTS"]


async def test_values_may_come_as_typed_contents(host: Triton) -> None:
    request = service_pb2.ModelInferRequest(model_name="fake")
    for name, kind, field, value in (
        ("PROMPT", "BYTES", "bytes_contents", b"a cat"),
        ("STEPS", "INT32", "int_contents", 2),
        ("SEED", "INT64", "int64_contents", 2**40),
        ("GUIDANCE_SCALE", "FP32", "fp32_contents", 2.0),
    ):
        getattr(request.inputs.add(name=name, datatype=kind, shape=[1]).contents, field).append(value)
    response = await GRPCInferenceServiceStub(host.served.channel).ModelInfer(request)
    result = triton.InferResult(response)
    own = await host.served.client.generate("a cat", steps=2, seed=2**40, guidance=2.0)
    np.testing.assert_array_equal(result.as_numpy("IMAGES")[0], np.asarray(own.images[0]))


async def test_a_stream_tells_each_step_with_its_preview_and_each_picture(host: Triton) -> None:
    request = {
        "model_name": "fake_stream",
        "inputs": inputs(STEPS=3, SAMPLES=2, SEED=4, PREVIEW_EVERY=2),
        "request_id": "mine",
    }
    results = [result for result, error in await answers(host, request) if error is None]
    assert {result.get_response().id for result in results} == {"mine"}
    steps = [result for result in results if "STEP" in names(result)]
    pictures = [result for result in results if "IMAGES" in names(result)]
    assert sorted((int(r.as_numpy("IMAGE_INDEX")[0]), int(r.as_numpy("STEP")[0])) for r in steps) == [
        (image, step) for image in (0, 1) for step in (1, 2, 3)
    ]
    previews = [result.as_numpy("PREVIEW")[0] for result in steps if "PREVIEW" in names(result)]
    assert [preview[:2] for preview in previews] == [b"\xff\xd8"] * 2
    own = await host.served.client.generate("a cat", steps=3, num_images=2, seed=4)
    for result in pictures:
        np.testing.assert_array_equal(
            result.as_numpy("IMAGES")[0], np.asarray(own.images[int(result.as_numpy("IMAGE_INDEX")[0])])
        )
    assert len(pictures) == 2
    assert not any(is_final(result) for result in results)  # nobody asked for the empty one that is


async def test_where_only_pictures_are_wanted_no_step_is_told(host: Triton) -> None:
    request = {"model_name": "fake_stream", "inputs": inputs(STEPS=3), "outputs": outputs("IMAGES")}
    ((result, error),) = await answers(host, request)
    assert error is None
    assert names(result) == ["IMAGES"]
    assert not is_final(result)


async def test_one_stream_carries_many_requests_and_an_error_ends_its_own_alone(host: Triton) -> None:
    requests = [
        {"model_name": "fake", "inputs": inputs(STEPS=9, SEED=1), "request_id": "slow", "outputs": outputs("SEEDS")},
        {"model_name": "fake", "inputs": inputs(STEPS=0), "request_id": "wrong"},
        {"model_name": "sdxl", "inputs": inputs(), "request_id": "unknown"},
        {"model_name": "fake", "inputs": inputs(STEPS=1, SEED=2), "request_id": "quick", "outputs": outputs("SEEDS")},
    ]
    told = await answers(host, *requests)
    assert [result and result.get_response().id for result, _ in told] == ["slow", None, None, "quick"]  # in order
    assert [result.as_numpy("SEEDS").tolist() for result, error in told if not error] == [[1], [2]]
    assert all(is_final(result) for result, error in told if not error)
    assert [error.message() for _, error in told if error] == [
        "steps=0: must be between 1 and 1000",
        "model='sdxl': is not served here; use fake",
    ]


async def test_an_error_in_a_stream_says_whose_it_is(host: Triton) -> None:
    async def messages() -> AsyncIterator[service_pb2.ModelInferRequest]:
        yield service_pb2.ModelInferRequest(model_name="fake_stream", id="7")

    stub = GRPCInferenceServiceStub(host.served.channel)
    (answer,) = [answer async for answer in stub.ModelStreamInfer(messages())]
    assert answer.error_message == "input 'PROMPT': is missing; send BYTES [1]"
    assert (answer.infer_response.id, answer.infer_response.model_name) == ("7", "fake_stream")
    assert answer.infer_response.parameters[FINAL].bool_param


@pytest.mark.parametrize(
    ("model", "options", "status", "sentence"),
    [
        ("fake_stream", {}, "UNIMPLEMENTED", "ModelInfer RPC doesn't support models with decoupled transaction policy"),
        ("sdxl", {}, "NOT_FOUND", "model='sdxl': is not served here; use fake"),
        ("fake", {"model_version": "2"}, "NOT_FOUND", "model='fake': has no version '2'; it has 1 alone"),
        ("fake", {"STEPS": 0}, "INVALID_ARGUMENT", "steps=0: must be between 1 and 1000"),
        ("fake", {"SCHEDULER": "magic"}, "INVALID_ARGUMENT", "sampler='magic': must be one of ddim"),
        ("fake", {"WIDTH": 128}, "FAILED_PRECONDITION", "width=128: bundle fake was built for 32 to 64"),
        ("fake", {"PREVIEW_EVERY": 1}, "INVALID_ARGUMENT", "input 'PREVIEW_EVERY': is none of this model's"),
        ("fake", {"outputs": outputs("STEP")}, "INVALID_ARGUMENT", "output 'STEP': is none of this model's"),
        ("fake", {"priority": 9}, "INVALID_ARGUMENT", "priority=9: must be 1, which goes first, to 3"),
        ("fake", {"parameters": {"steps": 5}}, "INVALID_ARGUMENT", "parameter 'steps': means nothing here"),
    ],
)
async def test_errors_have_tritons_status_and_our_sentence(
    host: Triton, model: str, options: dict[str, Any], status: str, sentence: str
) -> None:
    values = {name: value for name, value in options.items() if name.isupper()}
    rest = {name: value for name, value in options.items() if not name.isupper()}
    code, message = await host.refusal(host.client.infer(model, inputs(**values), **rest))
    assert code == status
    assert message.startswith(sentence)
    assert host.served.core.num_open == 0


async def test_a_sequence_and_a_priority_of_tritons_are_taken(host: Triton) -> None:
    result = await host.client.infer(
        "fake", inputs(STEPS=1), priority=1, sequence_id=7, sequence_start=True, sequence_end=True
    )
    assert result.as_numpy("SEEDS").tolist() == [0]


async def test_a_timeout_in_microseconds_ends_a_request_that_takes_longer(host: Triton) -> None:
    host.served.unet.hold()
    call = asyncio.create_task(host.refusal(host.client.infer("fake", inputs(STEPS=5), timeout=200_000)))
    await entered(host.served)
    await asyncio.sleep(0.3)
    host.served.unet.release()
    code, message = await call
    assert code == "DEADLINE_EXCEEDED"
    assert message.startswith("the deadline passed after 1 of 5 steps")
    await host.client.infer("fake", inputs(STEPS=2), timeout=60_000_000)


async def test_a_client_that_cancels_takes_its_request_back(host: Triton) -> None:
    host.served.unet.hold()
    call = asyncio.create_task(host.client.infer("fake", inputs(STEPS=50)))
    await entered(host.served)
    call.cancel()
    await asyncio.sleep(0.3)  # until the server has heard of it
    host.served.unet.release()
    await eventually(lambda: host.served.core.num_open == 0)
    assert len(host.served.unet.calls) < 5


async def test_a_stream_that_is_cancelled_takes_all_of_its_requests_back(host: Triton) -> None:
    host.served.unet.hold()
    done = asyncio.Event()

    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(3):
            yield {"model_name": "fake_stream", "inputs": inputs(STEPS=900), "request_id": str(number)}
        await done.wait()

    stream = host.client.stream_infer(requests())
    reading = asyncio.create_task(anext(stream))
    await eventually(lambda: host.served.core.num_open == 3)
    host.served.unet.release()
    await reading
    stream.cancel()
    await eventually(lambda: host.served.core.num_open == 0)
    assert len(host.served.unet.calls) < 900
    done.set()


Told = queue.Queue[tuple[triton.InferResult | None, InferenceServerException | None]]


@contextmanager
def streaming(target: str) -> Iterator[tuple[triton.InferenceServerClient, Told]]:
    """Open a stream with tritonclient's client of threads."""
    told: Told = queue.Queue()
    with triton.InferenceServerClient(target) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        yield client, told


def last_answers(target: str) -> list[list[str]]:
    with streaming(target) as (client, told):
        for number, steps in enumerate((2, 1)):
            client.async_stream_infer(
                "fake_stream", inputs(STEPS=steps), request_id=str(number), enable_empty_final_response=True
            )
        ended = []
        while len(ended) < 2:
            result, error = told.get(timeout=20)
            assert result is not None, error
            if is_final(result):
                ended.append([result.get_response().id, result.get_response().model_name, *names(result)])
        return ended


async def test_who_asks_for_it_hears_by_an_empty_answer_that_all_pictures_were_there(host: Triton) -> None:
    ended = await asyncio.to_thread(last_answers, host.served.target)
    assert sorted(ended) == [["0", "fake_stream"], ["1", "fake_stream"]]


def leave_early(target: str) -> str:
    with streaming(target) as (client, told):
        client.async_stream_infer("fake_stream", inputs(STEPS=900), request_id="a")
        result, _ = told.get(timeout=20)
        client.stop_stream(cancel_requests=True)
    assert result is not None
    return str(result.get_response().id)


async def test_the_client_of_threads_streams_and_cancels(host: Triton) -> None:
    assert await asyncio.to_thread(leave_early, host.served.target) == "a"
    await eventually(lambda: host.served.core.num_open == 0)
    assert len(host.served.unet.calls) < 900


async def test_a_stream_that_only_reads_keeps_its_order_and_at_most_so_many_requests_open(begin: Begin) -> None:
    host = await begin(max_queue_size=4)
    requests = [{"model_name": "fake", "inputs": inputs(STEPS=1, SEED=n), "request_id": str(n)} for n in range(300)]
    told = await answers(host, *requests)
    seeds = [int(result.as_numpy("SEEDS")[0]) for result, error in told if not error]
    assert len(told) == 300  # each has its answer: a picture, or that the queue is full
    assert seeds == sorted(seeds)
    assert {error.message().split(";")[0].split(" ")[0] for _, error in told if error} <= {"the"}


async def test_a_full_queue_is_resource_exhausted(begin: Begin) -> None:
    host = await begin(max_queue_size=1)
    host.served.unet.hold()
    first = asyncio.create_task(host.client.infer("fake", inputs(STEPS=2)))
    await entered(host.served)
    waiting = asyncio.create_task(host.client.infer("fake", inputs(STEPS=2, SAMPLES=1, SEED=9)))
    await eventually(lambda: host.served.core.num_open == 2)
    codes = set()
    for _ in range(3):
        try:
            await asyncio.wait_for(host.client.infer("fake", inputs(STEPS=2)), 0.3)
        except (TimeoutError, InferenceServerException) as error:
            codes.add(getattr(error, "status", lambda: "")())
    host.served.unet.release()
    await asyncio.gather(first, waiting)
    assert "StatusCode.RESOURCE_EXHAUSTED" in codes
