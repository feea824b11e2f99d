"""Hires fix: two walks as one request, equal to the same done by hand, alone and in any company."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture

from mezzotint.engines.batch import Batch
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.errors import InvalidRequest, ShapeNotCompiled
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.hires import Hires
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.request import Request, final_size_of
from mezzotint.engines.resample import bilinear, resampled
from mezzotint.engines.sampling import get_sampler, noised, plan
from mezzotint.engines.schedule import Spacing
from mezzotint.engines.start import Start
from tests.engines.by_hand import same, widened
from tests.fakes import UNET, fake_model

SHARK: dict[str, Any] = {"prompt": "a shark", "guidance": 4.0, "seed": 9, "return_latents": True}
TWICE = Hires(hires_scale=2.0, hires_steps=3, hires_strength=0.5)
LATENT = Request(**SHARK, steps=5, hires=TWICE)
LANCZOS = replace(LATENT, hires=replace(TWICE, hires_upscaler="lanczos"))


@pytest.fixture(scope="module")
def large(large_bundle: Path) -> Model:
    """The demo model, for 64 to 192 pixels."""
    return open_bundle(large_bundle, LoadOptions(devices={}, cache=False))


def paint(model: Model, request: Request) -> Image:
    return generate(model, [request])[0][0]


def first_walk(model: Model, request: Request) -> Image:
    return paint(model, replace(request, hires=Hires()))


def walked_from(model: Model, request: Request, clean: np.ndarray[Any, Any]) -> Image:
    """Denoise latents of another request, the last half of whose steps is made: image to image by hand."""
    num_steps, num_skipped = request.hires.walk(request.steps)
    height, width = final_size_of(request, model.manifest)
    (image,) = model.start(replace(request, hires=Hires(), steps=num_steps, height=height, width=width))
    sampler, _ = get_sampler(request.sampler or model.manifest.schedule.default_sampler)
    spacing = model.manifest.schedule.timestep_spacing or sampler.default_spacing
    schedule = model.manifest.schedule.noise_schedule()
    image.plan = plan(sampler, schedule, num_steps, spacing=Spacing(spacing), num_skipped=num_skipped)
    image.calls = image.calls[-image.plan.num_evaluations :]
    model.encode(Batch((image,)))
    noise = image.noise = NoiseStream(request.seed)
    image.state[0] = noised(clean, noise.normal((1, *image.shape))[0], image.plan)  # type: ignore[index]
    while image.stage is not Stage.DONE:
        run_call(model, Batch((image,)))
    return image


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "euler_a"])
def test_enlarged_latents_give_what_two_requests_give_by_hand(large: Model, sampler: str) -> None:
    request = replace(LATENT, sampler=sampler)
    before = first_walk(large, request)
    assert before.latents is not None
    made, by_hand = paint(large, request), walked_from(large, request, resampled(before.latents, (32, 32), bilinear))
    assert made.pixels is not None
    assert made.pixels.shape == (128, 128, 3)
    assert np.array_equal(made.latents, by_hand.latents)  # type: ignore[arg-type]
    assert same(made, by_hand)


def test_enlarged_pixels_give_what_image_to_image_of_the_enlarged_picture_gives(large: Model) -> None:
    before = first_walk(large, LANCZOS).pixels
    assert before is not None
    file = io.BytesIO()
    Picture.fromarray(before).resize((128, 128), Picture.Resampling.LANCZOS).save(file, "png")
    start = Start(image=file.getvalue(), strength=0.5)
    by_hand = paint(large, Request(**SHARK, steps=6, start=start, width=128, height=128))
    made = paint(large, LANCZOS)
    assert np.array_equal(made.latents, by_hand.latents)  # type: ignore[arg-type]
    assert same(made, by_hand)


@pytest.mark.parametrize("request_", [LATENT, LANCZOS], ids=["latent", "lanczos"])
@pytest.mark.parametrize("place", range(4))
def test_a_picture_is_bit_equal_alone_and_at_any_place_among_others(
    large: Model, request_: Request, place: int
) -> None:
    others = [
        Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", hires=Hires(1.5, 2, 0.4)),
        Request(prompt="a dog", steps=7, guidance=1.0, seed=2, num_images=2, width=128, height=128),
        Request(prompt="a fox", steps=6, guidance=6.0, seed=3, sampler="euler_a"),
    ]
    alone = paint(large, request_)
    mixed = generate(widened(large), [*others[:place], request_, *others[place:]])[place][0]
    assert same(alone, mixed)


def test_every_picture_of_a_request_is_that_of_its_own_seed(large: Model) -> None:
    two = generate(large, [replace(LATENT, num_images=2)])[0]
    assert same(two[1], paint(large, replace(LATENT, seed=LATENT.seed + 1)))


def test_the_walks_steps_count_up_and_each_walk_has_previews_of_its_size(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    request = Request(prompt="a cat", steps=4, guidance=1.0, preview_every=2, hires=replace(TWICE, hires_steps=2))
    (image,) = model.start(request)
    assert (image.num_steps, image.remaining) == (6, 6)
    seen, previews = [], []
    while image.stage is not Stage.DONE:
        before = image.stage
        run_call(model, Batch((image,)))
        if before is Stage.DENOISE:
            seen.append(image.step)
            previews.append(None if image.preview is None else image.preview.shape)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert previews == [None, (4, 8, 8), None, (4, 8, 8), None, (4, 16, 16)]
    assert (image.num_steps, image.remaining) == (6, 0)
    assert engines[UNET].log.count("vae_decoder full") == 1


def test_a_second_walk_that_alone_is_guided_has_the_negative_row(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    late = {"guidance": 4.0, "guidance_start": 0.8}  # beyond the last of four steps, and not of twenty
    request = Request(prompt="a cat", negative_prompt="a dog", steps=4, **late, hires=Hires(2.0, 10, 0.5))  # type: ignore[arg-type]
    (image,) = model.start(request)
    num_rows = []
    while image.stage is not Stage.DONE:
        batch = Batch((image,))
        if image.stage is Stage.DENOISE:
            inputs = batch.inputs()
            assert {len(rows) for rows in inputs.values()} == {image.num_rows}
            num_rows.append(image.num_rows)
        run_call(model, batch)
    assert num_rows == [1] * 12 + [2] * 2
    assert not np.array_equal(*inputs["text"])


def test_the_pixels_way_decodes_and_encodes_in_between(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    generate(model, [Request(prompt="a cat", steps=2, guidance=1.0, hires=Hires(2.0, 1, 0.5, "lanczos"))])
    decoder, encoder = "vae_decoder full", "vae_encoder full"
    assert engines[UNET].log == ["text_encoder full", *["unet full"] * 2, decoder, encoder, "unet full", decoder]


def test_as_many_steps_are_made_as_a1111_makes() -> None:
    assert Hires(2.0, 20, 0.7).walk(30) == (28, 8)
    assert Hires(2.0, 0, 0.5).walk(30) == (60, 30)
    assert Hires(2.0, 10, 1.0).walk(30) == (10, 0)


def test_sides_are_rounded_down_to_what_the_model_takes(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    request = Request(prompt="a cat", width=40, hires=Hires(1.5))
    assert final_size_of(request, model.manifest) == (48, 56)


@pytest.mark.parametrize(
    ("hires", "sentence"),
    [
        (Hires(0.5), "hires_scale=0.5: must be between 1 and 16"),
        (Hires(float("nan")), "hires_scale=nan: must be between"),
        (Hires(2.0, -1), "hires_steps=-1: must be between 0 and 1000"),
        (Hires(2.0, 3, 0.0), "hires_strength=0: must be above 0"),
        (Hires(2.0, 3, float("nan")), "hires_strength=nan: must be above 0"),
        (Hires(2.0, 30, 0.01), "30 steps at it are the last of 3000, but this model has 1000"),
        (Hires(2.0, 3, 1e-320), "3 steps at it are the last of inf, but this model has 1000"),
        (Hires(2.0, 3, 0.5, "cubic"), "hires_upscaler='cubic': must be one of latent, lanczos, or empty"),
        (Hires(2.0, 3, 0.5, "lanczos"), "has no vae_encoder engine"),
    ],
)
def test_what_is_no_second_walk_is_one_sentence(tmp_path: Path, hires: Hires, sentence: str) -> None:
    model, _ = fake_model(tmp_path)
    with pytest.raises(InvalidRequest, match=sentence):
        model.start(Request(prompt="a cat", steps=4, hires=hires))


def test_a_size_that_was_not_compiled_is_one_sentence(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    sentence = (
        r"hires_scale=3: makes a height of 96 out of 32, but bundle fake was built for 32 to 64; .*--height 32:32:96"
    )
    with pytest.raises(ShapeNotCompiled, match=sentence):
        model.start(Request(prompt="a cat", hires=Hires(3.0)))


def test_what_is_for_a_picture_that_is_painted_once_is_refused(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, step_cache=True)
    for other in ({"custom_sigmas": (9.0, 1.0), "sampler": "euler"}, {"cache_schedule": (0, 1)}):
        with pytest.raises(InvalidRequest, match=f"paints a picture twice, and {next(iter(other))} is for one"):
            model.start(Request(prompt="a cat", steps=2, hires=Hires(2.0), **other))  # type: ignore[arg-type]
