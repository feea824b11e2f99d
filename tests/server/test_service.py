"""What a request streams, what it may say, and what is refused, over a real socket."""

import asyncio

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mezzotint import MezzotintClientError
from mezzotint.engines.generate import generate
from mezzotint.engines.picture import parse_parameters, read_parameters
from mezzotint.engines.request import Request
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Accepted, Picture, Progress
from mezzotint.server.service import SERVICE
from tests.server.conftest import Running, Start, entered, eventually, raw, refused

HEALTH = health_pb2.HealthCheckResponse


async def test_a_request_streams_accepted_then_every_step_then_the_picture(served: Running) -> None:
    events = [event async for event in served.client.stream("a red cat", steps=3, seed=7, preview_every=2)]
    assert [type(event) for event in events] == [Accepted, Progress, Progress, Progress, Picture]
    accepted, *progress, picture = events
    assert (accepted.seeds, accepted.steps, accepted.queue_position, accepted.warnings) == ((7,), 3, 0, ())
    assert [(p.image_index, p.step, p.steps, bool(p.preview)) for p in progress] == [
        (0, 1, 3, False),
        (0, 2, 3, True),
        (0, 3, 3, False),
    ]
    assert (picture.seed, picture.width, picture.height, picture.format) == (7, 32, 32, "png")
    assert picture.engine_digest == "f" * 64
    assert picture.timings.total_ms >= picture.timings.denoise_ms > 0


async def test_the_pictures_are_those_of_the_engines_and_say_how_they_were_made(served: Running) -> None:
    result = await served.client.generate(
        "a red cat", negative_prompt="hat", steps=4, seed=5, guidance=3.0, num_images=2
    )
    expected = generate(
        served.core.model,
        [Request(prompt="a red cat", negative_prompt="hat", steps=4, seed=5, guidance=3.0, num_images=2)],
    )
    for image, picture in zip(expected[0], result.images, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), image.pixels)
    settings = parse_parameters(read_parameters(result.files[1]))
    assert (settings["Prompt"], settings["Seed"], settings["CFG scale"]) == ("a red cat", "6", "3")
    assert result.seeds == [5, 6]


async def test_what_is_not_set_takes_the_defaults_of_request(served: Running) -> None:
    events = await raw(served, pb.GenerateRequest(prompt="a cat").SerializeToString())
    assert (events[0].accepted.steps, list(events[0].accepted.seeds)) == (25, [0])
    assert len(events[0].accepted.request_id) == 32
    assert events[-1].image.format == pb.IMAGE_FORMAT_PNG


async def test_requests_of_different_steps_samplers_and_guidance_share_calls(served: Running) -> None:
    served.unet.hold()
    first = asyncio.ensure_future(served.client.generate("a", steps=6, seed=1))
    await entered(served)
    others = [
        asyncio.ensure_future(served.client.generate("dog", steps=steps, sampler=sampler, guidance=guidance, seed=2))
        for steps, sampler, guidance in ((2, "euler", 5.0), (3, "DPM++ 2M Karras", 1.0), (4, "heun", 2.0))
    ]
    await eventually(lambda: served.core.num_open == 4)
    await asyncio.sleep(0.2)  # they are tokenised
    served.unet.release()
    together = [result.files for result in await asyncio.gather(first, *others)]
    assert max(served.unet.calls) == 7
    alone = await served.client.generate("dog", steps=4, sampler="heun", guidance=2.0, seed=2)
    assert together[3] == alone.files


async def test_a_picture_names_its_sampler_and_levels_as_a1111_does(served: Running) -> None:
    for asked, written in (
        ({"sampler": "dpmpp_2m_karras"}, "Sampler: DPM++ 2M, Schedule type: Karras,"),
        (
            {"sampler": "sample_dpmpp_2m_sde", "sigmas": "automatic"},
            "Sampler: DPM++ 2M SDE, Schedule type: Exponential,",
        ),
        ({"sampler": "DPM++ 2M Karras", "sigmas": "default"}, "Sampler: DPM++ 2M, CFG scale"),
        ({"sampler": "Automatic"}, "Sampler: DDIM, CFG scale"),
        ({"sampler": "DPM++ 2M Karras", "custom_sigmas": [9.5, 1.0]}, "Sampler: DPM++ 2M, CFG scale"),
    ):
        result = await served.client.generate("a cat", steps=2, **asked)
        assert written in read_parameters(result.files[0])


async def test_jpeg_and_webp_are_given_where_they_are_asked_for(served: Running) -> None:
    for kind, name in (("jpeg", "JPEG"), ("webp", "WEBP")):
        result = await served.client.generate("a cat", steps=1, image_format=kind, quality=70)
        assert result.images[0].format == name
        assert result.pictures[0].format == kind


async def test_given_latents_and_states_and_sigmas_are_used_and_the_final_latents_come_back(served: Running) -> None:
    latents = np.random.default_rng(3).standard_normal((1, 4, 8, 8)).astype(np.float32)
    states = np.ones((8, 4), np.float32)
    request = Request(
        steps=2, latents=latents, prompt_states=states, negative_prompt_states=-states, custom_sigmas=(9.0, 2.0),
        sampler="euler", return_latents=True,
    )  # fmt: skip
    (expected,) = generate(served.core.model, [request])[0]
    result = await served.client.generate(
        "", steps=2, latents=latents, prompt_states=states, negative_prompt_states=-states, custom_sigmas=[9.0, 2.0],
        sampler="euler", return_latents=True, seed=0,
    )  # fmt: skip
    np.testing.assert_array_equal(result.pictures[0].latents, expected.latents)


async def test_an_interval_caching_and_a_decoder_are_used_and_written(start: Start) -> None:
    served = await start(step_cache=True, cut_decoder=True, tiny_decoder=True)
    options = {"steps": 6, "guidance": 3.0, "guidance_start": 0.2, "guidance_end": 0.7, "seed": 5}
    for caching in ({"cache_interval": 2}, {"cache_schedule": (0, 3)}):
        for decoder in ("", "tiny"):
            fields = options | caching | {"decoder": decoder}
            (expected,) = generate(served.core.model, [Request(prompt="a red cat", **fields)])[0]
            result = await served.client.generate("a red cat", **fields)
            np.testing.assert_array_equal(np.asarray(result.images[0]), expected.pixels)
            written = parse_parameters(read_parameters(result.files[0]))
            assert written["Guidance interval"] == "0.2-0.7"
            assert written["Step cache"] in ("2", "at 0 3")
            assert written.get("Decoder", "") == decoder


async def test_a_prompt_of_several_chunks_is_painted_whole(served: Running) -> None:
    fields = {"steps": 2, "guidance": 3.0, "seed": 5, "negative_prompt": "(hat:1.2)"}
    long = "a cat on a [red:blue:1] hat on a dog"
    (expected,) = generate(served.core.model, [Request(prompt=long, **fields)])[0]
    result = await served.client.generate(long, **fields)
    np.testing.assert_array_equal(np.asarray(result.images[0]), expected.pixels)
    assert result.warnings == ()
    cut = await served.client.generate("a cat on a [red:blue:1] hat", **fields)
    assert cut.files[0] != result.files[0]


async def test_a_prompt_of_more_chunks_than_the_bundle_takes_is_refused(served: Running) -> None:
    with pytest.raises(MezzotintClientError, match="prompt: fills 4 chunks of 6 tokens, but bundle fake") as refusal:
        await served.client.generate("cat " * 19, steps=1)
    assert refusal.value.code is grpc.StatusCode.FAILED_PRECONDITION
    (model,) = await served.client.models()
    assert model.max_tokens == 18


async def test_bytes_that_are_no_request_are_refused_in_one_sentence(served: Running) -> None:
    for data in (b"\xff\xff\xff", b"\x1a\x02\xff\xfe"):  # no message; a prompt that is not UTF-8
        error = await refused(served, data)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert error.details() == (
            f"the request's {len(data)} bytes are no mezzotint.v1.GenerateRequest with UTF-8 strings; check the client"
        )


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (pb.GenerateRequest(steps=-3), "steps=-3: must be between 1 and 1000"),
        (pb.GenerateRequest(steps=0), "steps=0: must be between 1 and 1000"),
        (pb.GenerateRequest(seed=-1), "seed=-1: must be between 0 and 9223372036854775807"),
        (pb.GenerateRequest(seed=2**63 - 1, num_images=2), "seed=9223372036854775807: must be between 0 and"),
        (pb.GenerateRequest(num_images=0), "num_images=0: must be between 1 and 64"),
        (pb.GenerateRequest(guidance=float("nan")), "guidance=nan: must be between 0 and 100"),
        (pb.GenerateRequest(sampler="magic"), "sampler='magic': must be one of ddim"),
        (pb.GenerateRequest(width=33), "width=33: must be a multiple of 8 between 32 and 64; nearest 32, 40"),
        (pb.GenerateRequest(height=-64), "height=-64: must be a multiple of 8"),
        (pb.GenerateRequest(image_format=9), "image_format=9: must be one of png, jpeg, webp"),
        (pb.GenerateRequest(quality=101), "quality=101: must be between 1 and 100"),
        (pb.GenerateRequest(latents=pb.Tensor(shape=[4], data=b"123")), "latents: has 3 bytes for shape [4]; must be"),
        (pb.GenerateRequest(latents=pb.Tensor(shape=[-1, -1], data=b"1234")), "latents: has 4 bytes for shape"),
        (pb.GenerateRequest(latents=pb.Tensor(shape=[1], data=b"1234")), "latents: is float32 [1]; must be float32"),
        (pb.GenerateRequest(guidance_end=0.0), "guidance_start=0: must be below guidance_end=0"),
        (pb.GenerateRequest(cache_interval=0), "cache_interval=0: must be between 1 and 1000"),
        (pb.GenerateRequest(cache_interval=2), "cache_interval=2: bundle fake was built without step caching"),
        (pb.GenerateRequest(cache_schedule=[4, 2]), "cache_schedule=[4, 2]: must be evaluations from 0 on, rising"),
        (
            pb.GenerateRequest(steps=2, sampler="heun", custom_sigmas=[1e300, 1.0]),
            "custom_sigmas: go from 1e+300 to 1; must be between 0.0001 and 10000",
        ),
        (pb.GenerateRequest(decoder="tiny"), "decoder='tiny': bundle fake was built without one"),
        (pb.GenerateRequest(request_id="a\nb"), "request_id: must be at most 128 letters, digits"),
    ],
)
async def test_a_wrong_field_is_refused_in_one_sentence(
    served: Running, message: pb.GenerateRequest, sentence: str
) -> None:
    error = await refused(served, message.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith(sentence)
    assert served.core.num_open == 0


async def test_a_seed_over_two_to_the_63_on_the_wire_is_refused_in_one_sentence(served: Running) -> None:
    varint = b"\x80" * 9 + b"\x01"  # 2**63, which no int64 of a stub can hold
    error = await refused(served, b"\x38" + varint)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.details().startswith("seed=-9223372036854775808: must be between 0 and 9223372036854775807")


async def test_a_size_that_was_not_compiled_names_the_sizes_there_are(served: Running) -> None:
    error = await refused(served, pb.GenerateRequest(width=128).SerializeToString())
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "width=128: bundle fake was built for 32 to 64" in error.details()


async def test_an_unknown_model_is_not_found(served: Running) -> None:
    with pytest.raises(MezzotintClientError, match="model='sdxl': is not served here; use fake") as refusal:
        await served.client.generate("a cat", model="sdxl")
    assert refusal.value.code is grpc.StatusCode.NOT_FOUND


async def test_health_says_serving_and_reflection_names_the_service(served: Running) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    for service in ("", SERVICE):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=service))).status == HEALTH.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    (answer,) = [answer async for answer in reflection.ServerReflectionInfo(asked)]
    assert SERVICE in {service.name for service in answer.list_services_response.service}
    asked = iter([reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE)])
    (answer,) = [answer async for answer in reflection.ServerReflectionInfo(asked)]
    assert answer.file_descriptor_response.file_descriptor_proto


async def test_models_are_listed_with_what_they_were_built_for(start: Start) -> None:
    served = await start(step_cache=True, cut_decoder=True, tiny_decoder=True)
    (model,) = await served.client.models()
    assert (model.name, model.digest, model.max_rows, model.default_sampler) == ("fake", "f" * 64, 8, "ddim")
    assert (model.width.min, model.width.default, model.width.max, model.size_multiple) == (32, 32, 64, 8)
    assert "euler_a" in model.samplers
    assert [(engine.component, engine.variant) for engine in model.engines] == list(served.engines)


async def test_a_model_that_is_loading_is_unavailable(served: Running) -> None:
    served.server.catalog.begin("late")
    with pytest.raises(MezzotintClientError, match="model late is still loading; try again in a moment") as refusal:
        await served.client.generate("a cat", model="late")
    assert refusal.value.code is grpc.StatusCode.UNAVAILABLE
    with pytest.raises(MezzotintClientError, match="model: must be named where several are served; one of fake, late"):
        await served.client.generate("a cat")
