"""End to end: a compiled bundle against diffusers' own pipeline, same checkpoint, same seed, float32."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.conftest import EMOJI

# diffusers' schedulers hand torch tensors to numpy functions, which numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*__array:DeprecationWarning")

SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "euler karras": (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "DPM2 a": (diffusers.KDPM2AncestralDiscreteScheduler, {}),
    "plms": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "deis beta": (diffusers.DEISMultistepScheduler, {"use_beta_sigmas": True}),
}


def paint_with_diffusers(
    checkpoint: Checkpoint, sampler: str, seeds: list[int], output: str, **options: Any
) -> np.ndarray[Any, Any]:
    scheduler, settings = SCHEDULERS[sampler]
    pipeline = checkpoint.pipeline()
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    images = pipeline(num_images_per_prompt=len(seeds), generator=generators, output_type=output, **options).images
    return np.asarray(images)


@pytest.fixture(scope="module")
def emoji_checkpoint() -> Checkpoint:
    return load_checkpoint(EMOJI)


SELDOM = ("unipc", "DPM2 a", "deis beta")


@pytest.mark.parametrize(
    "sampler", [pytest.param(name, marks=pytest.mark.slow if name in SELDOM else ()) for name in SCHEDULERS]
)
def test_every_sampler_paints_diffusers_picture_of_the_same_seed(
    emoji: Model, emoji_checkpoint: Checkpoint, sampler: str
) -> None:
    prompt, steps, guidance, seed = "a shark on a blue background", 12, 4.0, 7
    request = Request(
        prompt=prompt, steps=steps, guidance=guidance, seed=seed, sampler=sampler, num_images=2, negative_prompt="a cat"
    )
    ours = [image.pixels for image in generate(emoji, [request])[0]]
    theirs = paint_with_diffusers(
        emoji_checkpoint,
        sampler,
        [seed, seed + 1],
        "np",
        prompt=prompt,
        negative_prompt="a cat",
        num_inference_steps=steps,
        guidance_scale=guidance,
    )
    for pixels, truth in zip(ours, theirs, strict=True):
        assert pixels is not None
        assert psnr_db((truth * 255).round().astype(np.uint8), pixels) >= 45


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_one_row_gives_diffusers_picture(
    emoji: Model, emoji_checkpoint: Checkpoint, guidance: float
) -> None:
    request = Request(prompt="a cat", steps=8, guidance=guidance, seed=3, sampler="euler")
    made = generate(emoji, [request])[0][0]
    assert len(made.rows) == 1
    truth = paint_with_diffusers(
        emoji_checkpoint, "euler", [3], "np", prompt="a cat", num_inference_steps=8, guidance_scale=guidance
    )[0]
    assert made.pixels is not None
    assert psnr_db((truth * 255).round().astype(np.uint8), made.pixels) >= 45


@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_rescaled_guidance_gives_diffusers_picture(emoji: Model, emoji_checkpoint: Checkpoint, rescale: float) -> None:
    request = Request(prompt="a cat", steps=8, guidance=7.0, guidance_rescale=rescale, seed=3, sampler="ddim")
    made = generate(emoji, [request])[0][0].pixels
    truth = paint_with_diffusers(
        emoji_checkpoint,
        "ddim",
        [3],
        "np",
        prompt="a cat",
        num_inference_steps=8,
        guidance_scale=7.0,
        guidance_rescale=rescale,
    )[0]
    assert made is not None
    assert psnr_db((truth * 255).round().astype(np.uint8), made) >= 45


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m"])
def test_guidance_that_ends_early_gives_diffusers_picture(
    emoji: Model, emoji_checkpoint: Checkpoint, sampler: str
) -> None:
    request = Request(prompt="a shark", steps=10, guidance=4.0, guidance_end=0.4, seed=7, sampler=sampler)
    made = generate(emoji, [request])[0][0].pixels
    truth = paint_with_diffusers(
        emoji_checkpoint,
        sampler,
        [7],
        "np",
        prompt="a shark",
        num_inference_steps=10,
        guidance_scale=4.0,
        # after the fourth step, of index 3, there is none
        callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=3),
    )[0]
    assert made is not None
    assert psnr_db((truth * 255).round().astype(np.uint8), made) >= 45


@pytest.fixture(scope="module", params=["sd15", pytest.param("sd21", marks=pytest.mark.slow)])
def miniature(request: pytest.FixtureRequest) -> tuple[Checkpoint, Model]:
    folder: Path = request.getfixturevalue(f"{request.param}_checkpoint")
    bundle: Path = request.getfixturevalue(f"{request.param}_bundle")
    return load_checkpoint(folder), open_bundle(bundle, LoadOptions(devices={}, cache=False))


@pytest.mark.parametrize("sampler", ["ddim", "euler", "euler_a", "heun", "dpmpp_2m"])
def test_latents_of_a_random_model_equal_diffusers(miniature: tuple[Checkpoint, Model], sampler: str) -> None:
    checkpoint, model = miniature
    request = Request(prompt="a cat", steps=10, guidance=3.0, seed=5, sampler=sampler, return_latents=True)
    latents = generate(model, [request])[0][0].latents
    truth = paint_with_diffusers(
        checkpoint, sampler, [5], "latent", prompt="a cat", num_inference_steps=10, guidance_scale=3.0
    )[0]
    assert latents is not None
    assert np.linalg.norm(latents - truth) / np.linalg.norm(truth) <= 1e-3
