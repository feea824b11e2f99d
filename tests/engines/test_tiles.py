"""Pictures in tiles: where they lie, how they fade into each other, and which are decoded so."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import numpy.typing as npt
import pytest

from mezzotint.engines.component import Component
from mezzotint.engines.decode_room import whole_pixels
from mezzotint.engines.generate import generate
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.prepared import Wanted
from mezzotint.engines.request import Request
from mezzotint.engines.shapes import CompiledShapes
from mezzotint.engines.sizes import Size
from mezzotint.engines.tiles import OVERLAP, Tiles, Tiling, ramp, small_copy, starts
from mezzotint.engines.variants import TILE
from tests.engines.by_hand import same
from tests.fakes import fake_model

DECODER = (Component.VAE_DECODER, "full")
TILES = (Component.VAE_DECODER, TILE)


def latents(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("tile", [8, 16, 18, 64])
@pytest.mark.parametrize("length", [5, 16, 17, 23, 24, 40, 128, 131])
def test_tiles_cover_a_side_and_have_a_quarter_in_common(length: int, tile: int) -> None:
    found = starts(length, tile)
    assert found[0] == 0
    assert found[-1] == max(0, length - tile)
    assert all(before + tile - behind >= OVERLAP * tile for before, behind in pairwise(found))
    assert len(found) == 1 or starts(length, tile)[1] > 0


def test_tiles_are_no_larger_than_their_picture() -> None:
    tiling = Tiling.of((8, 40), (16, 16), 4)
    assert tiling.tile == (8, 16)
    assert tiling.corners == ((0, 0), (0, 12), (0, 24))


def test_weights_rise_and_fall_linearly_inside_of_the_overlap() -> None:
    side = ramp(16, 2)
    assert side[2:6].tolist() == [0.125, 0.375, 0.625, 0.875]
    assert (side[6:16] == 1).all()
    assert (side[:2] < 1e-5).all()
    assert np.array_equal(side, side[::-1])


@pytest.mark.parametrize("size", [(16, 40), (33, 17), (24, 24)])
def test_tiles_of_a_decoder_that_sees_single_pixels_are_the_whole(size: tuple[int, int]) -> None:
    sample = latents(3, *size)
    tiles = Tiles(Tiling.of(size, (16, 16), 2))
    assert tiles.canvas.shape == (3, 2 * size[0], 2 * size[1])
    for call in range(1, tiles.num_calls):
        tiles.take(call, tiles.latents(sample, call).repeat(2, axis=1).repeat(2, axis=2), None)
    np.testing.assert_allclose(tiles.blended(), sample.repeat(2, axis=1).repeat(2, axis=2), rtol=1e-5, atol=1e-5)


def test_a_small_copy_has_the_means_and_deviations_of_the_whole() -> None:
    sample = latents(4, 48, 40) * np.array([1, 2, 3, 4], np.float32)[:, None, None] + 1
    small = small_copy(sample, (16, 16))
    assert small.shape == (4, 16, 16)
    np.testing.assert_allclose(small.mean(axis=(1, 2)), sample.mean(axis=(1, 2)), rtol=1e-4)
    np.testing.assert_allclose(small.std(axis=(1, 2)), sample.std(axis=(1, 2)), rtol=1e-4)
    there = small_copy(array_api_strict.asarray(sample), (16, 16))
    np.testing.assert_allclose(np.from_dlpack(there), small, rtol=1e-5, atol=1e-5)


def tiled_fake(folder: Path, whole: int | None) -> tuple[Model, dict[Any, Any]]:
    model, engines = fake_model(folder, tile_decoder=True)
    made = Model(model.manifest, model.digest, model.prompts, model.engines, model.max_rows, whole)
    return made, engines


def paint(model: Model, **options: Any) -> Image:
    return generate(model, [Request(prompt="a cat", steps=2, guidance=1.0, seed=1, **options)])[0][0]


def test_only_what_is_too_large_is_decoded_in_tiles(tmp_path: Path) -> None:
    model, engines = tiled_fake(tmp_path, 40 * 40)
    small, large = paint(model, width=32, height=48), paint(model, width=64, height=64)
    assert engines[DECODER].calls == [1]
    assert len(engines[TILES].calls) == 1 + 9
    assert large.decoder == (TILE,) * 10
    assert small.decoder == ("full",)
    whole, _ = tiled_fake(tmp_path, None)
    assert same(paint(whole, width=32, height=48), small)
    truth = paint(whole, width=64, height=64).pixels
    assert truth is not None
    assert large.pixels is not None
    assert np.abs(large.pixels.astype(int) - truth).max() <= 1  # sums of weights are rounded


def test_a_tiny_decoder_that_is_asked_for_decodes_whole(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, tile_decoder=True, tiny_decoder=True)
    made = Model(model.manifest, model.digest, model.prompts, model.engines, model.max_rows, 1)
    assert paint(made, width=64, height=64, decoder="tiny").decoder == ("tiny",)
    assert not engines[TILES].calls


def test_pictures_in_tiles_take_turns_and_share_calls_of_their_tiles_alone(tmp_path: Path) -> None:
    model, _ = tiled_fake(tmp_path, 40 * 40)
    one, other, whole = (
        model.start(Request(prompt="a cat", width=width, height=height))[0]
        for width, height in ((64, 64), (48, 64), (32, 48))
    )
    for image in (one, other, whole):
        image.stage = Stage.DECODE
    assert one.signature == other.signature
    assert one.signature != whole.signature
    assert one.decoded_size == other.decoded_size == (8, 8)


def test_an_engine_that_is_never_called_at_a_size_is_not_prepared_for_it(tmp_path: Path) -> None:
    model, _ = tiled_fake(tmp_path, 40 * 40)
    assert model.has_calls(DECODER, Size(8, 8, 8))
    assert not model.has_calls(DECODER, Size(16, 16, 8))
    assert not model.has_calls(TILES, Size(16, 16, 8))
    assert model.has_calls((Component.UNET, "full"), Size(16, 16, 8))


def wanted(model: Model, weights: int, picture: int) -> dict[tuple[Component, str], Wanted]:
    """Engines of so many bytes of weights, and so many more at their own size."""
    return {
        (entry.component, entry.variant): Wanted(
            entry.model_copy(update={"resident_bytes": {1: weights + picture}}), (1,), weights, packs_each_shape=True
        )
        for entry in model.manifest.engines
    }


def test_the_largest_whole_picture_follows_from_the_room_that_others_leave(tmp_path: Path) -> None:
    model, _ = tiled_fake(tmp_path, None)
    weights, picture = 800 << 20, 200 << 20
    engines = wanted(model, weights, picture)
    margin = 16 << 20
    others = 3 * (weights + picture + margin)  # text encoder, UNet and the decoder for tiles
    room = others + weights + 4 * (picture + margin)
    own = 32 * 32
    assert whole_pixels(model.manifest, engines, CompiledShapes(room)) == 4 * own
    assert whole_pixels(model.manifest, engines, CompiledShapes(others)) == own
    assert whole_pixels(model.manifest, engines, CompiledShapes()) is None
    assert whole_pixels(model.manifest, engines, None) is None
    assert whole_pixels(model.manifest, engines, CompiledShapes(room), 1) == 1
    del engines[TILES]
    assert whole_pixels(model.manifest, engines, CompiledShapes(room)) is None


def test_a_bundle_without_an_engine_for_tiles_says_that_none_are_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, _ = fake_model(tmp_path)
    assert whole_pixels(model.manifest, wanted(model, 1, 1), None, 100) is None
    assert "has no engine for tiles, so pictures of more than 100 pixels are decoded whole" in caplog.text
