"""Engines that are models of the real tritonserver, called from inside it and by a server of ours elsewhere."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from mezzotint import Client
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.server.config import CoreConfig
from mezzotint.server.triton.export import Components, ExportOptions, export, write_remote_bundle
from tests.conftest import BUILD, EMOJI, compile_by_hand
from tests.server.real import serving
from tests.server.triton.asking import eventually, inputs, names_of, outputs
from tests.server.triton.environment import Triton, tritonserver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ASKED = Request(prompt="a shark", steps=4, seed=7, guidance=4.0)
NO_CACHE = LoadOptions(devices={}, cache=False)


@dataclass
class Parts:
    """A bundle whose engines are models, and the bundle that calls them from elsewhere."""

    triton: Triton
    bundle: Path
    remote: Path

    @property
    def options(self) -> LoadOptions:
        return LoadOptions(devices={"": self.triton.grpc}, cache=False)


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def parts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    backend: str = request.param
    bundle = compile_by_hand(
        EMOJI, BUILD / f"emoji-parts-{backend}", "--precision", "fp32", "--backend", backend, "--prompt", "a cat"
    )
    folder = tmp_path_factory.mktemp("components")
    made = ExportOptions(components=Components.PYTHON, call_seconds=30.0)
    names = export(bundle, folder / "repository", made)
    components = ("text_encoder", "unet", "vae_decoder", "vae_encoder", "stream")
    assert names == (*(f"emoji_{component}" for component in components), "emoji")
    write_remote_bundle(bundle, folder / "remote", "localhost:1", made)
    options = ("--model-control-mode=explicit", "--load-model=*")
    with tritonserver(folder / "repository", folder / "log", *options) as triton:
        yield Parts(triton, bundle, folder / "remote")


def pixels(model: Model) -> np.ndarray:
    ((image,),) = generate(model, [ASKED])
    assert image.pixels is not None
    return image.pixels


def test_our_loop_inside_triton_calls_its_components(parts: Parts) -> None:
    model = open_bundle(parts.bundle, NO_CACHE)
    with client.InferenceServerClient(parts.triton.grpc) as connection:
        asked = inputs(ASKED.prompt, steps=4, seed=7, guidance_scale=4.0)
        result = connection.infer("emoji", asked, outputs=outputs("IMAGES"))
    assert np.array_equal(result.as_numpy("IMAGES")[0], pixels(model))
    calls = parts.triton.scraped()['nv_inference_request_success{model="emoji_unet",version="1"}']
    assert calls >= 4


def test_a_missing_component_is_named_and_asked_for_again(parts: Parts) -> None:
    with client.InferenceServerClient(parts.triton.grpc) as connection:
        connection.unload_model("emoji_stream")
        connection.unload_model("emoji_vae_decoder")
        eventually(lambda: not connection.is_model_ready("emoji_vae_decoder"))
        connection.load_model("emoji_stream")
        asked = inputs(steps=2)
        with pytest.raises(InferenceServerException, match="has no model emoji_vae_decoder") as refusal:
            connection.infer("emoji", asked)
        assert refusal.value.status() == "StatusCode.UNAVAILABLE"
        connection.load_model("emoji_vae_decoder")
        assert names_of(connection.infer("emoji", asked, outputs=outputs("SEEDS"))) == {"SEEDS"}


def test_our_engines_elsewhere_call_them_with_the_same_pictures(parts: Parts) -> None:
    expected = pixels(open_bundle(parts.bundle, NO_CACHE))
    model = open_bundle(parts.remote, parts.options)
    assert np.array_equal(pixels(model), expected)
    model.close()


def test_a_bundle_of_other_engines_than_the_models_run_is_refused(parts: Parts, tmp_path: Path) -> None:
    other = compile_by_hand(EMOJI, BUILD / "emoji-parts-other", "--precision", "fp16", "--prompt", "a cat")
    write_remote_bundle(other, tmp_path / "other", "localhost:1", ExportOptions(components=Components.PYTHON))
    with pytest.raises(BundleError, match="runs another engine"):
        open_bundle(tmp_path / "other", parts.options)


def test_a_call_that_takes_too_long_or_a_model_that_is_gone_is_one_sentence(parts: Parts, tmp_path: Path) -> None:
    hasty = ExportOptions(components=Components.PYTHON, call_seconds=1e-3)
    write_remote_bundle(parts.bundle, tmp_path / "hasty", "localhost:1", hasty)
    model = open_bundle(tmp_path / "hasty", parts.options)
    with pytest.raises(EngineFailed, match=r"text_encoder failed on .* model emoji_text_encoder: "):
        pixels(model)
    model.close()
    with client.InferenceServerClient(parts.triton.grpc) as connection:
        connection.unload_model("emoji_unet")
        with pytest.raises(BundleError, match="has no model emoji_unet"):
            open_bundle(parts.remote, parts.options)
        connection.load_model("emoji_unet")


def test_nobody_at_an_address_is_one_sentence(parts: Parts) -> None:
    with pytest.raises(DeviceNotFound, match="no Triton server answers there"):
        open_bundle(parts.remote, NO_CACHE)  # port 1 of this machine, as the bundle says


async def test_requests_of_our_server_share_the_remote_calls(parts: Parts) -> None:
    async with serving(parts.remote, CoreConfig(), parts.options) as (_, target):

        def ask(seed: int) -> bytes:
            with Client(target) as own:
                return own.generate("a cat", steps=4, seed=seed).files[0]

        files = await asyncio.gather(*(asyncio.to_thread(ask, seed) for seed in range(4)))
    assert len(set(files)) == 4
