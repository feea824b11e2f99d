"""Pictures that begin with a picture: a compiled bundle against diffusers' own pipelines, same seed, float32."""

import io
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from mezzotint.compile.checkpoint import Checkpoint, load_checkpoint
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.image import Image
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.start import Start
from tests.conftest import EMOJI

# diffusers' schedulers hand torch tensors to numpy functions, which numpy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*__array:DeprecationWarning")

SCHEDULERS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "ddim": (diffusers.DDIMScheduler, {}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "DPM++ 2M": (diffusers.DPMSolverMultistepScheduler, {}),
    "euler_a": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "DPM++ 2M Karras": (diffusers.DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
}
PROMPT, STEPS, GUIDANCE, SEED = "a cat face", 10, 4.0, 7


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return load_checkpoint(EMOJI)


@pytest.fixture(scope="module")
def picture(emoji: Model) -> np.ndarray:
    """A shark that the model has painted itself."""
    made = generate(emoji, [Request(prompt="a shark on a blue background", steps=8, guidance=4.0, seed=7)])[0][0]
    assert made.pixels is not None
    return made.pixels


@pytest.fixture(scope="module")
def mask(picture: np.ndarray) -> np.ndarray:
    """Its left half and a corner."""
    white = np.zeros(picture.shape[:2], np.uint8)
    white[:, : white.shape[1] // 2] = 255
    white[-20:, -10:] = 200
    return white


def diffusers_pipeline(checkpoint: Checkpoint, kind: type[Any], sampler: str) -> Any:
    scheduler, settings = SCHEDULERS[sampler]
    pipeline = kind(**checkpoint.pipeline().components, requires_safety_checker=False)
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_diffusers(checkpoint: Checkpoint, kind: type[Any], sampler: str, **options: Any) -> np.ndarray:
    """Return diffusers' picture, uint8 [H, W, 3]."""
    pipeline = diffusers_pipeline(checkpoint, kind, sampler)
    given: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, **options}
    seed = given.pop("seed", SEED)
    made = pipeline(PROMPT, generator=torch.Generator("cpu").manual_seed(seed), output_type="np", **given).images[0]
    return (made * 255).round().astype(np.uint8)


def paint(model: Model, sampler: str, start: Start, **options: Any) -> Image:
    given: dict[str, Any] = {"prompt": PROMPT, "steps": STEPS, "guidance": GUIDANCE, "seed": SEED, **options}
    return generate(model, [Request(sampler=sampler, start=start, **given)])[0][0]


def cases(strengths: tuple[float, ...], *quick: tuple[str, float]) -> list[Any]:
    """Return every sampler at every strength; all but the quick ones are slow."""
    every = [(sampler, strength) for sampler in SCHEDULERS for strength in strengths]
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(
    ("sampler", "strength"),
    cases((0.35, 0.8, 1.0), ("ddim", 0.35), ("euler", 0.35), ("DPM++ 2M", 0.35), ("euler_a", 0.35)),
)
def test_a_picture_from_a_picture_is_diffusers(
    emoji: Model, checkpoint: Checkpoint, picture: np.ndarray, sampler: str, strength: float
) -> None:
    made = paint(emoji, sampler, Start(image=png(picture), strength=strength)).pixels
    truth = with_diffusers(
        checkpoint,
        diffusers.StableDiffusionImg2ImgPipeline,
        sampler,
        image=Pillow.fromarray(picture),
        strength=strength,
    )
    assert made is not None
    assert psnr_db(truth, made) >= 45


@pytest.mark.parametrize(("sampler", "strength"), cases((0.5, 1.0), ("DPM++ 2M", 0.5), ("euler_a", 0.5)))
def test_a_masked_picture_is_diffusers_laid_over_the_initial_one(
    emoji: Model, checkpoint: Checkpoint, picture: np.ndarray, mask: np.ndarray, sampler: str, strength: float
) -> None:
    start = Start(image=png(picture), mask=png(mask), strength=strength)
    made = paint(emoji, sampler, start).pixels
    truth = with_diffusers(
        checkpoint,
        diffusers.StableDiffusionInpaintPipeline,
        sampler,
        image=Pillow.fromarray(picture),
        mask_image=Pillow.fromarray(mask),
        strength=strength,
        height=64,
        width=64,
    )
    assert made is not None
    drawn = mask >= 128
    assert psnr_db(truth[drawn], made[drawn]) >= 45
    assert np.array_equal(made[~drawn], picture[~drawn])


@pytest.fixture(scope="module")
def inpainting(inpainting_checkpoint: Path, inpainting_bundle: Path) -> tuple[Checkpoint, Model]:
    return load_checkpoint(inpainting_checkpoint), open_bundle(inpainting_bundle, LoadOptions(devices={}, cache=False))


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("sampler", ["ddim", "euler", "DPM++ 2M", "euler_a"])
def test_a_model_that_takes_the_mask_as_an_input_paints_diffusers_latents(
    inpainting: tuple[Checkpoint, Model], sampler: str, strength: float
) -> None:
    checkpoint, model = inpainting
    rng = np.random.default_rng(0)
    picture = np.asarray(Pillow.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((128, 128)))
    mask = np.zeros((128, 128), np.uint8)
    mask[30:, :70] = 255
    start = Start(image=png(picture), mask=png(mask), strength=strength)
    made = paint(model, sampler, start, return_latents=True)
    pipeline = diffusers_pipeline(checkpoint, diffusers.StableDiffusionInpaintPipeline, sampler)
    truth = pipeline(
        PROMPT,
        image=Pillow.fromarray(picture),
        mask_image=Pillow.fromarray(mask),
        strength=strength,
        height=128,
        width=128,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator("cpu").manual_seed(SEED),
        output_type="latent",
    ).images[0]
    assert made.latents is not None
    assert made.pixels is not None
    assert np.linalg.norm(made.latents - truth.numpy()) <= 1e-3 * np.linalg.norm(truth.numpy())
    assert np.array_equal(made.pixels[mask < 128], picture[mask < 128])


@pytest.mark.slow
def test_a_model_that_takes_the_mask_as_an_input_paints_from_noise_too(inpainting: tuple[Checkpoint, Model]) -> None:
    _, model = inpainting
    pictures = [paint(model, "ddim", Start(), seed=seed, return_latents=True) for seed in (1, 2)]
    assert all(np.isfinite(picture.latents).all() for picture in pictures)
    assert not np.array_equal(pictures[0].pixels, pictures[1].pixels)  # type: ignore[arg-type]
