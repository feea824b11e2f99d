import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from mezzotint import AsyncClient, Client, MezzotintClientError
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.errors import client_error
from mezzotint.proto.messages import build_request
from mezzotint.proto.results import Accepted, Collector, Picture, Progress, event_of
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from tests.fakes import fake_model
from tests.threads import in_a_thread


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    """The address of a server on fake engines, in a thread of its own."""

    async def make() -> Server:
        model, _ = fake_model(tmp_path)
        server = Server(Catalog(["fake"]))
        server.catalog.add(Core(model, CoreConfig()))
        return server

    with in_a_thread(make) as address:
        yield address


def test_generate_returns_pictures_files_seeds_timings_and_warnings(target: str) -> None:
    steps: list[Progress] = []
    with Client(target) as client:
        result = client.generate("a cat", steps=2, seed=9, num_images=2, preview_every=1, on_progress=steps.append)
    assert [image.size for image in result.images] == [(32, 32)] * 2
    assert [file[:4] for file in result.files] == [b"\x89PNG"] * 2
    assert result.seeds == [9, 10]
    assert result.timings[0].denoise_ms > 0
    assert result.warnings == ()
    assert len(result.request_id) == 32
    assert len(steps) == 4
    assert steps[0].preview[:2] == b"\xff\xd8"


def test_latents_go_in_and_come_out(target: str) -> None:
    latents = np.ones((1, 4, 8, 8), np.float32)
    with Client(target) as client:
        (picture,) = client.generate("a", steps=1, latents=latents, return_latents=True).pictures
        (plain,) = client.generate("a", steps=1, seed=picture.seed).pictures
    assert picture.latents is not None
    assert (picture.latents.shape, picture.latents.dtype) == ((4, 8, 8), np.float32)
    assert plain.latents is None
    assert picture.data != plain.data


def test_the_same_seed_gives_the_same_bytes_through_both_clients(target: str) -> None:
    async def ask() -> list[bytes]:
        async with AsyncClient(target) as client:
            assert [model.name for model in await client.models()] == ["fake"]
            return (await client.generate("a cat", steps=3, seed=4)).files

    with Client(target) as client:
        assert client.generate("a cat", steps=3, seed=4).files == asyncio.run(ask())


def test_a_stream_gives_events_and_can_be_cancelled(target: str) -> None:
    with Client(target) as client:
        kinds = [type(event) for event in client.stream("a cat", steps=2)]
        assert kinds == [Accepted, Progress, Progress, Picture]
        stream = client.stream("a cat", steps=1000)
        assert isinstance(next(iter(stream)), Accepted)
        stream = client.stream("a cat", steps=1000)
        stream.cancel()
        with pytest.raises(MezzotintClientError, match="the request was cancelled") as failure:
            list(stream)
    assert failure.value.code is grpc.StatusCode.CANCELLED


async def test_a_stream_of_a_client_that_is_closed_ends_with_an_error_and_not_as_a_task_that_was_cancelled(
    target: str,
) -> None:
    client = AsyncClient(target)
    asked = asyncio.create_task(client.generate("a cat", steps=1000))
    await client.models()
    await client.close()
    with pytest.raises(MezzotintClientError, match="the request was cancelled"):
        await asked


async def test_a_task_that_is_cancelled_is_cancelled_whatever_becomes_of_the_client(target: str) -> None:
    client = AsyncClient(target)
    asked = asyncio.create_task(client.generate("a cat", steps=1000))
    await client.models()
    asked.cancel()
    await client.close()
    with pytest.raises(asyncio.CancelledError):
        await asked


class NoName(grpc.RpcError):
    """What gRPC says of a host that has no address."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "DNS resolution failed for box:1: C-ares status is not ARES_SUCCESS"

    def initial_metadata(self) -> None:
        return None

    trailing_metadata = initial_metadata


def test_a_host_without_an_address_is_said_and_grpcs_own_words_are_kept() -> None:
    error = client_error(NoName(), "box:1")
    assert str(error) == "box:1: no name server knows that host; check its name"
    assert error.details.startswith("DNS resolution failed")


def test_models_say_what_they_were_built_for(target: str) -> None:
    with Client(target, timeout=10.0) as client:
        (model,) = client.models()
    unet = model.engines[1]
    assert (model.name, model.width.max) == ("fake", 64)
    assert (unet.component, unet.variant, unet.precision) == ("unet", "full", "fp32")


def test_a_refusal_has_code_sentence_and_request_id(target: str) -> None:
    with Client(target) as client, pytest.raises(MezzotintClientError) as refusal:
        client.generate("a cat", sampler="magic", request_id="mine")
    assert refusal.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert str(refusal.value).startswith("sampler='magic': must be one of ddim")
    assert (refusal.value.request_id, refusal.value.retry_after_ms) == ("mine", None)


def test_no_server_is_one_sentence_that_names_the_target() -> None:
    sentence = "127.0.0.1:1: no Mezzotint server answers there; start one with `mezzotint serve BUNDLE`"

    async def ask() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            await client.generate("a cat")

    with Client("127.0.0.1:1") as client:
        for call in (lambda: client.generate("a cat"), client.models, lambda: asyncio.run(ask())):
            with pytest.raises(MezzotintClientError) as failure:
                call()
            assert (str(failure.value), failure.value.code) == (sentence, grpc.StatusCode.UNAVAILABLE)


def test_a_seed_and_an_id_are_always_sent() -> None:
    first, second = build_request("a", {}), build_request("a", {"seed": None})
    assert first.HasField("seed")
    assert (first.seed, first.request_id) != (second.seed, second.request_id)
    assert 0 <= first.seed < 2**32
    assert build_request("a", {"seed": np.int64(7)}).seed == 7  # type: ignore[typeddict-item]
    assert not first.HasField("steps")  # the server's default
    assert not first.HasField("guidance_end")
    assert not first.HasField("cache_interval")


def test_intervals_schedules_and_a_decoder_are_sent_as_they_are_given() -> None:
    message = build_request("a", {"guidance_start": 0.2, "guidance_end": 0.0, "cache_schedule": [0, 3], "decoder": "x"})
    assert (message.guidance_start, message.HasField("guidance_end"), message.guidance_end) == (0.2, True, 0.0)
    assert (list(message.cache_schedule), message.decoder) == ([0, 3], "x")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"seed": 2**63}, "seed=9223372036854775808: must be between 0 and 9223372036854775807"),
        ({"seed": 1.5}, "seed=1.5: must be an integer"),
        ({"seed": -1}, "seed=-1: must be between 0 and 9223372036854775807"),
        ({"image_format": "gif"}, "image_format='gif': must be one of png, jpeg, jpg, webp"),
        ({"steps": 2**40}, "steps=1099511627776: cannot be sent"),
        ({"steps": "many"}, "steps='many': cannot be sent"),
        ({"cache_schedule": [0, 0.5]}, "cache_schedule=[0, 0.5]: cannot be sent"),
        ({"latents": "noise"}, "latents: cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(MezzotintClientError) as refusal:
        build_request("a", options)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(sentence)
    assert refusal.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_prompt_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(MezzotintClientError, match=r"prompt='a.ud800': cannot be sent"):
        build_request("a\ud800", {})


def test_an_unknown_option_names_those_there_are() -> None:
    with pytest.raises(TypeError, match="unknown option cfg_scale; there are model, negative_prompt, steps"):
        build_request("a", {"cfg_scale": 7})  # type: ignore[typeddict-unknown-key]


def test_a_stream_that_ends_early_is_an_error_and_an_unknown_event_is_not() -> None:
    collector = Collector("id")
    collector.add(Accepted("id", (1, 2), 3, 0, ()))
    with pytest.raises(MezzotintClientError, match="the stream ended after 0 of 2 pictures"):
        collector.result()
    assert event_of(pb.GenerateEvent()) is None


def test_importing_mezzotint_and_its_client_stays_light() -> None:
    check = (
        "import sys, mezzotint; assert 'grpc' not in sys.modules; mezzotint.Client; mezzotint.AsyncClient; "
        "print(sorted({'numpy', 'PIL', 'pydantic', 'torch', 'openvino', 'mezzotint.engines'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
