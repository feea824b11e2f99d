"""Initial pictures and masks among all other pictures: on fake engines, on a device of its own, and compiled."""

import io
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
from PIL import Image as Pillow

from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import SAMPLERS
from mezzotint.engines.start import Start
from mezzotint.engines.variants import FULL, PICTURE
from tests.elsewhere import ElsewhereEngine, watch
from tests.fake_manifest import CHANNELS
from tests.fakes import SHALLOW_UNET, fake_model

SIDE = 32
VAE_ENCODER = (Component.VAE_ENCODER, FULL)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(array).save(file, "png")
    return file.getvalue()


def picture(side: int = SIDE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def half(side: int = SIDE) -> np.ndarray:
    white = np.zeros((side, side), np.uint8)
    white[:, side // 2 :] = 255
    return white


def starts(side: int) -> list[Start]:
    """All kinds of beginnings."""
    image = png(picture(side))
    return [
        Start(image=image, strength=0.5),
        Start(),
        Start(image=image, mask=png(half(side)), strength=0.7),
        Start(image=image, strength=1.0),
        Start(image=image, mask=png(half(side)), mask_blur=2.0, strength=1.0),
        Start(image=png(picture(side + 8, seed=1)), resize_mode="crop", strength=0.3),
    ]


def requests_of(side: int, steps: int) -> list[Request]:
    samplers = ("ddim", "euler", "heun", "euler_a", "dpmpp_2m", "unipc")
    return [
        Request(
            prompt="a cat",
            sampler=sampler,
            steps=steps + i % 2,
            guidance=float(i % 3),
            seed=i,
            num_images=1 + i % 2,
            return_latents=True,
            start=start,
        )
        for i, (sampler, start) in enumerate(zip(samplers, starts(side), strict=True))
    ]


def assert_same(some: list[list[Image]], others: list[list[Image]]) -> None:
    for a, b in zip(chain(*some), chain(*others), strict=True):
        assert a.latents is not None
        assert b.latents is not None
        assert np.isfinite(a.latents).all()
        assert a.latents.tobytes() == b.latents.tobytes()
        assert np.array_equal(a.pixels, b.pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize("fills_in", [False, True])
def test_every_beginning_gives_the_same_picture_alone_and_among_all_others(tmp_path: Path, *, fills_in: bool) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True, fills_in=fills_in)
    requests = requests_of(SIDE, 8)
    assert_same(generate(model, requests), generate(model, requests, together=False))


def test_a_beginning_and_cached_steps_go_together(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True, fills_in=True, step_cache=True)
    requests = [replace(request, cache_interval=1 + i % 3) for i, request in enumerate(requests_of(SIDE, 8))]
    assert_same(generate(model, requests), generate(model, requests, together=False))
    assert engines[SHALLOW_UNET].calls


def test_a_compiled_bundle_gives_every_beginning_alone_and_among_all_others(emoji: Model) -> None:
    requests = requests_of(64, 3)
    assert_same(generate(emoji, requests), generate(emoji, requests, together=False))


@pytest.mark.parametrize("fills_in", [False, True])
def test_on_a_device_nothing_but_pictures_and_final_latents_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fills_in: bool
) -> None:
    reads = watch(monkeypatch)
    model, _ = fake_model(tmp_path, vae_encoder=True, fills_in=fills_in)
    engines = {key: ElsewhereEngine(engine, reads) for key, engine in model.engines.items()}
    there = Model(model.manifest, model.digest, model.prompts, engines, model.max_rows)  # type: ignore[arg-type]
    requests = requests_of(SIDE, 4)
    here, away = generate(model, requests), generate(there, requests)
    num_images = sum(request.num_images for request in requests)
    assert sorted(reads.read) == sorted([(CHANNELS, 8, 8), (3, SIDE, SIDE)] * num_images)
    assert engines[Component.UNET, FULL].given == {array_api_strict}
    for a, b in zip(chain(*here), chain(*away), strict=True):
        np.testing.assert_allclose(a.latents, b.latents, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_the_mask_keeps_is_the_picture_s_own_latents_in_the_end(tmp_path: Path, sampler: str) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    start = Start(image=png(picture()), mask=png(half()), strength=0.7)
    (image,) = model.start(Request(prompt="a cat", steps=6, sampler=sampler, start=start, return_latents=True))
    run_call(model, Batch((image,)))
    run_call(model, Batch((image,)))
    assert image.canvas is not None
    clean = np.array(image.canvas.clean)
    while image.stage is not Stage.DONE:
        run_call(model, Batch((image,)))
    assert image.latents is not None
    assert np.array_equal(image.latents[..., :4], clean[..., :4])
    assert np.abs(image.latents[..., 4:] - clean[..., 4:]).mean() > 0.1
    assert image.pixels is not None
    assert np.array_equal(image.pixels[:, : SIDE // 2], picture()[:, : SIDE // 2])
    assert len(engines[VAE_ENCODER].calls) == 1


def test_a_blurred_mask_mixes_its_edge_and_leaves_what_is_farther_away(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True)
    hard, soft = (
        generate(model, [Request(steps=4, start=Start(image=png(picture()), mask=png(half()), mask_blur=blur))])[0][0]
        for blur in (0.0, 1.5)
    )
    assert hard.pixels is not None
    assert soft.pixels is not None
    changed = (hard.pixels != soft.pixels).any(axis=(0, 2))
    assert changed[SIDE // 2 - 2 : SIDE // 2 + 2].all()
    assert not changed[: SIDE // 2 - 8].any()
    assert not changed[SIDE // 2 + 8 :].any()


def test_pictures_of_one_request_are_encoded_once_and_those_of_others_share_the_call(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    start = Start(image=png(picture()), strength=0.5)
    images = [image for seed in (1, 2) for image in model.start(Request(steps=4, seed=seed, num_images=2, start=start))]
    run_call(model, Batch(tuple(images)))
    assert {(image.stage, image.variant) for image in images} == {(Stage.ENCODE, PICTURE)}
    assert len({image.signature for image in images}) == 1
    run_call(model, Batch(tuple(images)))
    assert {image.stage for image in images} == {Stage.DENOISE}
    assert engines[VAE_ENCODER].calls == [2]
    assert [image.num_steps for image in images] == [2] * 4


def test_a_bundle_that_fills_in_a_mask_paints_without_a_picture_over_a_grey_one(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True, fills_in=True)
    grey = np.full((SIDE, SIDE, 3), 127, np.uint8)
    everywhere = Start(image=png(grey), mask=png(np.full((SIDE, SIDE), 255, np.uint8)), strength=1.0)
    plain, masked = generate(model, [Request(prompt="a cat", steps=3, start=start) for start in (Start(), everywhere)])
    assert np.array_equal(plain[0].pixels, masked[0].pixels)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ({"strength": 0.05}, "strength=0.05: leaves none of 10 steps; use 0.1 or more"),
        ({"strength": 1.5}, "strength=1.5: must be between 0 and 1"),
        ({"mask_blur": 4.0}, "mask_blur=4: feathers a mask, and there is none"),
        ({"mask": png(half()), "mask_blur": -1.0}, "mask_blur=-1: must be between 0 and 64 pixels"),
        ({"mask": png(half()), "mask_blur": float("nan")}, "mask_blur=nan: must be between 0 and 64 pixels"),
        ({"resize_mode": "squash"}, "resize_mode='squash': must be one of stretch, crop, fill"),
        ({"mask": png(half(16))}, "mask: is 16x16, but the image is 32x32; send a mask of the image's size"),
        ({"mask": png(np.zeros((SIDE, SIDE), np.uint8))}, "mask: has nothing white"),
        ({"mask": b"white"}, "mask: its 5 bytes are no whole png, jpeg, webp file"),
        ({"image": b"", "mask": png(half())}, "mask: says what becomes of an initial picture, and there is none"),
        ({"image": b"", "strength": 0.5}, "strength: says what becomes of an initial picture"),
    ],
)
def test_a_beginning_that_cannot_be_is_one_sentence(tmp_path: Path, start: dict[str, Any], sentence: str) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    with pytest.raises(InvalidRequest) as refused:
        model.start(Request(steps=10, start=Start(**{"image": png(picture())} | start)))
    assert str(refused.value).startswith(sentence)
    assert not any(engine.calls for engine in engines.values())


def test_a_bundle_without_an_encoder_says_so(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    with pytest.raises(InvalidRequest, match="image: bundle fake has no vae_encoder engine to read it with; compile"):
        model.start(Request(steps=10, start=Start(image=png(picture()))))
