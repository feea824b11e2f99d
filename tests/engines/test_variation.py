"""Variations: the noise is A1111's slerp of two seeds' noises, and the picture is diffusers' of that noise."""

from typing import Any

import numpy as np
import pytest
import torch

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.noise import MAX_SEED, NoiseStream
from mezzotint.engines.request import Request
from mezzotint.engines.variation import Variation, slerp
from tests.conftest import EMOJI
from tests.engines.by_hand import paint, same
from tests.engines.test_against_diffusers import SCHEDULERS

SHAPE = (4, 8, 8)
STRENGTHS = (0.05, 0.5, 1.0)


def torch_noise(seed: int) -> np.ndarray[Any, Any]:
    return torch.randn((1, *SHAPE), generator=torch.Generator("cpu").manual_seed(seed)).numpy()[0]


def plain_slerp(share: float, low: np.ndarray[Any, Any], high: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Turn each column of each channel in double precision, one after the other."""
    made = np.empty(low.shape)
    for c, x in np.ndindex(low.shape[0], low.shape[2]):
        a, b = low[c, :, x].astype(np.float64), high[c, :, x].astype(np.float64)
        angle = np.arccos(a @ b / np.sqrt((a @ a) * (b @ b)))
        made[c, :, x] = (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)
    return made


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_noise_is_a_slerp_of_torchs_noises_of_both_seeds(strength: float) -> None:
    noise = NoiseStream(7).normal((1, *SHAPE))[0]
    varied = Variation(100, strength).vary(noise, 3)
    np.testing.assert_allclose(varied, plain_slerp(strength, torch_noise(7), torch_noise(103)), atol=1e-5)
    assert varied.dtype == np.float32


def test_equal_noises_stay_as_they_are() -> None:
    noise = torch_noise(7)
    np.testing.assert_allclose(slerp(0.3, noise, noise), noise, rtol=1e-6)


def test_noise_of_zeros_is_turned_into_numbers() -> None:
    noise = torch_noise(7)
    noise[1, :, 2] = 0.0
    for low, high in ((noise, torch_noise(8)), (torch_noise(8), noise), (np.zeros_like(noise), noise)):
        assert np.isfinite(slerp(0.3, low, high)).all()


@pytest.mark.filterwarnings("ignore:.*__array:DeprecationWarning")
@pytest.mark.parametrize("sampler", ["euler", "euler_a"])
def test_a_variation_is_diffusers_picture_of_the_turned_noise_and_draws_on_from_the_seeds(
    emoji: Model, sampler: str
) -> None:
    request = Request(prompt="a shark", steps=8, guidance=4.0, seed=7, sampler=sampler, variation=Variation(8, 0.4))
    made = paint(emoji, request)
    own, other = (torch.Generator("cpu").manual_seed(seed) for seed in (7, 8))
    low, high = (torch.randn((1, *made.shape), generator=generator).numpy()[0] for generator in (own, other))
    scheduler, settings = SCHEDULERS[sampler]
    pipeline = load_checkpoint(EMOJI).pipeline()
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **settings)
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.from_numpy(plain_slerp(0.4, low, high).astype(np.float32)[None])
    truth = pipeline(
        "a shark", num_inference_steps=8, guidance_scale=4.0, latents=latents, generator=[own], output_type="np"
    ).images[0]
    assert made.pixels is not None
    assert psnr_db((truth * 255).round().astype(np.uint8), made.pixels) >= 45


def test_without_strength_the_subseed_changes_nothing(emoji: Model) -> None:
    request = {"prompt": "a shark", "steps": 3, "seed": 7}
    assert same(paint(emoji, Request(**request)), paint(emoji, Request(**request, variation=Variation(5, 0.0))))
    assert not same(paint(emoji, Request(**request)), paint(emoji, Request(**request, variation=Variation(5, 0.1))))


def test_pictures_of_one_request_have_its_seed_and_subseeds_in_a_row(emoji: Model) -> None:
    request = Request(prompt="a shark", steps=2, seed=7, num_images=3, variation=Variation(20, 0.3))
    made = generate(emoji, [request])[0]
    assert [image.seed for image in made] == [7, 7, 7]
    third = paint(emoji, Request(prompt="a shark", steps=2, seed=7, variation=Variation(22, 0.3)))
    assert same(made[2], third)
    assert not same(made[0], made[1])


def test_given_noise_is_turned_too(emoji: Model) -> None:
    latents = NoiseStream(7).normal((1, *paint(emoji, Request(steps=1)).shape))
    given = Request(prompt="a shark", steps=2, seed=1, latents=latents, variation=Variation(20, 0.3))
    assert same(
        paint(emoji, given), paint(emoji, Request(prompt="a shark", steps=2, seed=7, variation=Variation(20, 0.3)))
    )


@pytest.mark.parametrize(
    ("variation", "sentence"),
    [
        (Variation(0, 1.1), "subseed_strength=1.1: must be between 0 and 1; 0 is none, 0.1 a little"),
        (Variation(0, -0.1), "subseed_strength=-0.1: must be between 0 and 1"),
        (Variation(0, float("nan")), "subseed_strength=nan: must be between 0 and 1"),
        (Variation(-1, 0.5), f"subseed=-1: must be between 0 and {MAX_SEED - 1}"),
        (Variation(MAX_SEED, 0.5), f"subseed={MAX_SEED}: must be between 0 and {MAX_SEED - 1}"),
    ],
)
def test_what_is_no_variation_is_one_sentence(emoji: Model, variation: Variation, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        emoji.start(Request(num_images=2, variation=variation))
    assert str(refused.value).startswith(sentence)
