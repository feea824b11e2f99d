"""Models that were distilled with guidance take it as an input: one row an image, whatever the scale."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines import guidance
from mezzotint.engines.batch import Batch
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import Manifest, TensorSpec
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.fake_manifest import fake_manifest
from tests.fakes import fake_model

WIDTH = 6


def distilled_manifest() -> Manifest:
    manifest = fake_manifest("fake")
    taken = TensorSpec(name="guidance", role="guidance", dtype="float32", axes=("rows", WIDTH))
    engines = tuple(
        entry.model_copy(update={"inputs": (*entry.inputs, taken)}) if entry.component is Component.UNET else entry
        for entry in manifest.engines
    )
    return manifest.model_copy(update={"engines": engines})


@pytest.fixture
def distilled(tmp_path: Path) -> Model:
    return fake_model(tmp_path, bundle=(distilled_manifest(), "f" * 64))[0]


@pytest.mark.parametrize("width", [16, 256, 7])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1.5, 8.0])
def test_the_embedding_is_diffusers(scale: float, width: int) -> None:
    make: Any = diffusers.StableDiffusionPipeline.get_guidance_scale_embedding
    truth = make(None, torch.tensor([scale - 1.0]), embedding_dim=width)[0].numpy()
    # sines of thousands of radians lose digits in float32
    np.testing.assert_allclose(guidance.embedding(scale, width), truth, atol=2e-3)


def test_an_image_has_one_row_and_its_own_guidance(distilled: Model) -> None:
    images = [distilled.start(Request(prompt="a cat", guidance=scale))[0] for scale in (8.0, 1.0)]
    assert [len(image.rows) for image in images] == [1, 1]
    assert {call.weights for image in images for call in image.calls} == {(1.0,)}
    distilled.encode(Batch(tuple(images)))
    given = Batch(tuple(images)).inputs()["guidance"]
    np.testing.assert_array_equal(given, [guidance.embedding(8.0, WIDTH), guidance.embedding(1.0, WIDTH)])


@pytest.mark.parametrize("field", [{"guidance_start": 0.2}, {"guidance_end": 0.5}, {"guidance_rescale": 0.7}])
def test_what_needs_an_unguided_row_is_refused(distilled: Model, field: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="this model takes guidance as an input"):
        distilled.start(Request(prompt="a cat", **field))  # type: ignore[arg-type]


def test_a_negative_prompt_is_said_to_be_left_out(distilled: Model) -> None:
    warnings = distilled.warnings(Request(prompt="a cat", negative_prompt="a dog"))
    assert warnings == ("negative_prompt: is not looked at, since this model takes guidance as an input",)


def test_states_need_no_negative_ones_which_are_said_to_be_left_out(distilled: Model) -> None:
    text = distilled.manifest.text
    states = np.zeros((text.max_tokens, text.width), np.float32)
    assert len(distilled.start(Request(prompt_states=states, guidance=8.0))[0].rows) == 1
    both = Request(prompt_states=states, negative_prompt_states=states, guidance=8.0)
    assert len(distilled.start(both)[0].rows) == 1
    assert distilled.warnings(both) == (
        "negative_prompt_states: is not looked at, since this model takes guidance as an input",
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*__array__:DeprecationWarning")
@pytest.mark.parametrize(
    ("sampler", "scheduler"), [("", "LCMScheduler"), ("tcd", "TCDScheduler"), ("ddim", "DDIMScheduler")]
)
def test_a_compiled_distilled_model_paints_diffusers_latents(
    distilled_checkpoint: Path, distilled_bundle: Path, sampler: str, scheduler: str
) -> None:
    model = open_bundle(distilled_bundle, LoadOptions(devices={}, cache=False))
    assert model.manifest.schedule.default_sampler == "lcm"
    request = Request(prompt="a cat", steps=4, guidance=8.0, seed=5, sampler=sampler, return_latents=True)
    other = Request(prompt="a dog", steps=3, guidance=1.5, seed=6, sampler=sampler, return_latents=True)
    latents = generate(model, [request, other])[0][0].latents
    pipeline = load_checkpoint(distilled_checkpoint).pipeline()
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    truth = pipeline(
        "a cat",
        num_inference_steps=4,
        guidance_scale=8.0,
        generator=torch.Generator("cpu").manual_seed(5),
        output_type="latent",
    ).images[0]
    assert latents is not None
    assert np.linalg.norm(latents - truth.numpy()) / np.linalg.norm(truth.numpy()) <= 1e-3


@pytest.mark.slow
def test_a_compiled_distilled_models_shallow_unet_takes_guidance_too(distilled_bundle: Path) -> None:
    model = open_bundle(distilled_bundle, LoadOptions(devices={}, cache=False))
    plain, strong = (
        generate(
            model, [Request(prompt="a cat", steps=4, guidance=scale, seed=5, cache_interval=2, return_latents=True)]
        )
        for scale in (1.0, 8.0)
    )
    assert plain[0][0].latents is not None
    assert strong[0][0].latents is not None
    assert not np.array_equal(plain[0][0].latents, strong[0][0].latents)
