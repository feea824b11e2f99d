"""Seconds that an image still is, by what the manifest says of its engines."""

import io
from pathlib import Path

import pytest
from PIL import Image as Picture

from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.generate import run_call
from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request
from mezzotint.engines.sizes import Size
from mezzotint.engines.start import Start
from mezzotint.server.costs import EngineCosts
from tests.fake_manifest import fake_manifest
from tests.fakes import UNET, fake_model

STEP_MS = {
    (Component.TEXT_ENCODER, "full"): {1: 4.0, 2: 6.0},
    (Component.UNET, "full"): {1: 100.0, 2: 150.0, 8: 800.0},
    (Component.VAE_DECODER, "full"): {1: 500.0},
    (Component.VAE_ENCODER, "full"): {1: 300.0},
}


def measured_costs(*, vae_encoder: bool = False) -> EngineCosts:
    manifest = fake_manifest(vae_encoder=vae_encoder)
    engines = [e.model_copy(update={"step_ms": STEP_MS[e.component, e.variant]}) for e in manifest.engines]
    return EngineCosts(manifest.model_copy(update={"engines": tuple(engines)}))


def test_an_image_is_its_calls_at_the_best_rows_and_its_decoding(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    costs = measured_costs()
    (image,) = model.start(Request(prompt="a cat", steps=4, guidance=7.0))
    assert costs.work_left(image).seconds == pytest.approx(2 * 0.003 + 4 * 2 * 0.075 + 0.5)
    image.stage, image.evaluation = Stage.DENOISE, 3
    assert costs.work_left(image).seconds == pytest.approx(2 * 0.075 + 0.5)
    image.stage, image.evaluation = Stage.DECODE, 4
    assert costs.work_left(image).seconds == pytest.approx(0.5)
    image.stage = Stage.DONE
    assert costs.work_left(image).seconds == 0.0


def test_a_strength_leaves_evaluations_out_and_a_picture_is_encoded_once(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True)
    costs = measured_costs(vae_encoder=True)
    file = io.BytesIO()
    Picture.new("RGB", (32, 32)).save(file, "png")
    start = Start(image=file.getvalue(), strength=0.5)
    (image,) = model.start(Request(prompt="a cat", steps=4, guidance=7.0, start=start))
    assert costs.work_left(image).denoising == pytest.approx(2 * 2 * 0.075)
    assert costs.work_left(image).rest == pytest.approx(2 * 0.003 + 0.3 + 0.5)
    run_call(model, Batch((image,)))
    assert costs.work_left(image).rest == pytest.approx(0.3 + 0.5)
    run_call(model, Batch((image,)))
    assert costs.work_left(image).rest == pytest.approx(0.5)


def test_a_larger_picture_is_as_much_more_work_as_it_has_pixels(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    costs = measured_costs()
    small, large = (
        model.start(Request(prompt="a cat", steps=4, guidance=1.0, width=side, height=side))[0] for side in (32, 64)
    )
    text = 0.003
    assert costs.work_left(large).seconds - text == pytest.approx(4 * (costs.work_left(small).seconds - text))


def test_without_measurements_work_is_counted_in_rows(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    (image,) = model.start(Request(prompt="a cat", steps=4, guidance=7.0))
    assert EngineCosts(model.manifest).work_left(image).seconds == 8.0


def test_what_was_learnt_of_a_size_holds_at_once_for_that_size(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    costs = measured_costs()
    small, large = (
        model.start(Request(prompt="a cat", steps=4, guidance=7.0, width=side, height=side))[0] for side in (32, 64)
    )
    for image in (small, large):
        image.stage = Stage.DENOISE
    assert (costs.max_rows(small, "full"), costs.max_rows(large, "full")) == (2, 2)
    assert costs.call_seconds([large, large]) == pytest.approx(4 * 0.3)
    costs.learn(UNET, Size(16, 16, 0), {1: 400.0, 2: 500.0, 4: 600.0, 8: 1600.0})
    assert (costs.max_rows(small, "full"), costs.max_rows(large, "full")) == (2, 4)
    assert costs.call_seconds([large, large]) == pytest.approx(0.6)
    assert costs.work_left(large).denoising == pytest.approx(4 * 2 * 0.15)
    assert costs.stretch(2, large) == pytest.approx(0.6 / 0.3)
    assert costs.call_seconds([small, small]) == pytest.approx(0.3)
    assert costs.usual_max_rows() == {"full": 2}
