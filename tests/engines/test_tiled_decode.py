"""Pictures in tiles by the demo model's own decoder, beside whole decodes; enlarged latents beside torch's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mezzotint.compile.verify import psnr_db
from mezzotint.engines.batch import Batch
from mezzotint.engines.bundle import LoadOptions, open_bundle, plan_loading, wanted_engines
from mezzotint.engines.component import Component
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.image import Stage
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.resample import bilinear, resampled
from mezzotint.engines.tiles import Tiles
from mezzotint.engines.variants import TILE
from tests.engines.by_hand import same

TILES = (Component.VAE_DECODER, TILE)
SHARK: dict[str, Any] = {"prompt": "a shark on a blue background", "steps": 8, "guidance": 4.0, "seed": 3}
LARGE = Request(**SHARK, width=160, height=128)


@pytest.mark.parametrize("size", [(16, 16), (24, 20), (31, 9)])
def test_latents_are_enlarged_as_torch_does_it(size: tuple[int, int]) -> None:
    sample = np.random.default_rng(0).standard_normal((4, 8, 8), dtype=np.float32)
    truth = torch.nn.functional.interpolate(torch.from_numpy(sample)[None], size, mode="bilinear", antialias=False)
    np.testing.assert_allclose(resampled(sample, size, bilinear), truth[0].numpy(), rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def tiled(large_bundle: Path) -> Model:
    """The demo model, whose pictures above its own size are decoded in tiles."""
    return open_bundle(large_bundle, LoadOptions(devices={}, cache=False, tiles_above=64 * 64))


@pytest.fixture(scope="module")
def whole(large_bundle: Path) -> Model:
    """The demo model, whose pictures are all decoded whole."""
    return open_bundle(large_bundle, LoadOptions(devices={}, cache=False))


def test_a_picture_in_tiles_is_close_to_the_whole_and_much_closer_than_plain_blending(
    tiled: Model, whole: Model
) -> None:
    truth, ours = (generate(model, [LARGE])[0][0].pixels for model in (whole, tiled))
    assert truth is not None
    assert ours is not None
    plain = plainly_blended(tiled)
    assert psnr_db(truth, ours) > 30
    assert psnr_db(truth, ours) > psnr_db(truth, plain) + 3


def plainly_blended(model: Model) -> npt.NDArray[np.uint8]:
    """Paint with tiles whose norms take their own statistics."""
    (image,) = model.start(LARGE)

    class Plain(Tiles):
        def take(self, call: int, pixels: Any, statistics: Any) -> None:
            super().take(call, pixels, np.zeros_like(statistics))

        def inner(self, like: Any) -> Any:
            return np.zeros(1, np.float32)

    assert image.tiles is not None
    image.tiles = Plain(image.tiles.tiling)
    while image.stage is not Stage.DONE:
        run_call(model, Batch((image,)))
    assert image.pixels is not None
    return image.pixels


def test_a_picture_in_tiles_is_bit_equal_alone_and_among_others(tiled: Model) -> None:
    others = [
        Request(prompt="a cat face", steps=5, guidance=3.0, seed=1, width=128, height=128),
        Request(prompt="a red apple", steps=3, guidance=1.0, seed=2, num_images=2),
    ]
    alone = generate(tiled, [LARGE])[0][0]
    mixed = generate(tiled, [others[0], LARGE, others[1]])
    assert same(alone, mixed[1][0])
    assert same(generate(tiled, [others[0]])[0][0], mixed[0][0])


def test_small_pictures_are_those_of_a_bundle_without_tiles(tiled: Model, whole: Model) -> None:
    request = Request(**SHARK)
    assert same(generate(tiled, [request])[0][0], generate(whole, [request])[0][0])


@pytest.mark.parametrize(("more", "is_tiled"), [(1 << 20, True), (1 << 30, False)])
def test_a_memory_budget_says_from_where_on_a_picture_is_in_tiles(
    large_bundle: Path, more: int, is_tiled: bool
) -> None:
    options = LoadOptions(devices={}, cache=False, memory_budget=1)
    least = sum(engine.least_bytes() for engine in wanted_engines(large_bundle, options).values())
    options = replace(options, memory_budget=least + more)
    model = open_bundle(large_bundle, options, plan_loading([large_bundle], options, has_bytes=0))
    small, large = (model.start(Request(**SHARK, width=side, height=side))[0] for side in (64, 192))
    model.close()
    assert TILE not in small.decoder
    assert (TILE in large.decoder) is is_tiled


def test_the_engine_for_tiles_is_loaded_where_it_may_be_called_alone(tiled: Model, whole: Model) -> None:
    assert TILES in tiled.engines
    assert TILES not in whole.engines
