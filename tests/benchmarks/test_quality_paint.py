"""Painting with the real bundle: pictures are kept, taken up again, and change with what they depend on."""

from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from benchmarks.quality import Judge, draw_cases, ground_as_asked, named_psnr_db, paint, with_engine
from benchmarks.quality.cases import named_pictures, targets
from benchmarks.quality.metrics import psnr_db
from benchmarks.quality.paint import code_digest
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.component import Component
from mezzotint.engines.errors import BundleError
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request

CASES = draw_cases(22)  # two files


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("quality")


def test_pictures_are_those_of_the_engines_own_api(emoji_bundle: Path, emoji: Model, store: Path) -> None:
    pictures = paint(emoji_bundle, CASES, 2, store=store)
    request = Request(prompt=CASES[21].prompt, seed=CASES[21].seed, steps=2, sampler="ddim", guidance=4.0)
    assert pictures.shape == (22, 64, 64, 3)
    (made,) = generate(emoji, [request])[0]
    assert made.pixels is not None
    assert np.array_equal(pictures[21], made.pixels)
    assert np.array_equal(pictures[20:], paint(emoji, CASES[20:], 2))


def test_a_run_that_was_killed_goes_on_with_what_is_missing(emoji_bundle: Path, store: Path) -> None:
    before = paint(emoji_bundle, CASES, 2, store=store)
    first, second = sorted(store.glob("*/*.npz"))
    np.savez(first, pixels=255 - before[:20])  # what is kept is taken as it is
    second.unlink()
    after = paint(emoji_bundle, CASES, 2, store=store)
    assert np.array_equal(after[:20], 255 - before[:20])
    assert np.array_equal(after[20:], before[20:])
    first.unlink()


def test_other_settings_steps_noise_and_cases_are_other_pictures(emoji_bundle: Path, store: Path) -> None:
    cases = CASES[:1]
    plain = paint(emoji_bundle, cases, 2, store=store)
    for other in (
        paint(emoji_bundle, cases, 3, store=store),
        paint(emoji_bundle, cases, 2, settings={"guidance": 3.0}, store=store),
        paint(emoji_bundle, cases, 2, noise=0.1, store=store),
        paint(emoji_bundle, CASES[1:2], 2, store=store),
    ):
        assert not np.array_equal(plain, other)


def test_a_little_noise_is_a_little_difference(emoji_bundle: Path, store: Path) -> None:
    plain = paint(emoji_bundle, CASES[:4], 4, store=store)
    found = psnr_db(plain, paint(emoji_bundle, CASES[:4], 4, noise=1e-3, store=store))
    assert (found > 55).all()
    assert (found < 85).all()


@pytest.mark.slow
def test_the_judge_finds_what_is_painted(emoji_bundle: Path, store: Path) -> None:
    cases = CASES[:4]
    pictures = paint(emoji_bundle, cases, 8, store=store)
    judge = Judge(emoji_bundle)
    assert judge.retrieved(pictures, cases).all()
    assert judge.retrieved(targets(CASES), CASES).all()
    others = np.stack([named_pictures(case.ground)[case.index - 1] for case in CASES])
    assert judge.nearest(others, CASES).tolist() == [(case.index - 1) % 142 for case in CASES]
    judge.close()
    assert ground_as_asked(pictures, cases).all()
    assert (named_psnr_db(pictures, cases) > 18).all()


def test_an_exchanged_engine_is_the_one_that_runs(emoji_bundle: Path, tmp_path: Path, store: Path) -> None:
    for suffix in ("xml", "bin"):
        (tmp_path / f"other.{suffix}").write_bytes((emoji_bundle / f"unet.{suffix}").read_bytes())
    same = with_engine(emoji_bundle, Component.UNET, tmp_path / "other.xml", store=store)
    assert read_manifest(same).engine(Component.UNET).files.keys() == {
        "exchanged-unet-full/other.xml",
        "exchanged-unet-full/other.bin",
    }
    assert np.array_equal(paint(same, CASES[:1], 2, store=store), paint(emoji_bundle, CASES[:1], 2, store=store))
    model = ov.Core().read_model(emoji_bundle / "unet.xml")
    (result,) = model.get_results()
    result.input(0).replace_source_output(ov.opset13.multiply(result.input_value(0), np.float32(0.9)).output(0))
    ov.save_model(model, tmp_path / "other.xml", compress_to_fp16=False)
    other = with_engine(emoji_bundle, Component.UNET, tmp_path / "other.xml", store=store)
    assert other != same
    assert not np.array_equal(paint(other, CASES[:1], 2, store=store), paint(emoji_bundle, CASES[:1], 2, store=store))
    with pytest.raises(BundleError, match="sha256"):  # the first one's links lead to what was changed
        open_bundle(same, LoadOptions(devices={}, cache=False))


def test_a_missing_engine_file_is_refused(emoji_bundle: Path, store: Path) -> None:
    with pytest.raises(BundleError, match=r"nowhere\.xml: no engine file"):
        with_engine(emoji_bundle, Component.UNET, Path("nowhere.xml"), store=store)


def test_the_code_has_a_digest() -> None:
    assert len(code_digest()) == 64
