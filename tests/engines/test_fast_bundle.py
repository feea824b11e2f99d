"""A compiled bundle with a shallow UNet, a decoder in parts and a tiny one: what it paints."""

from typing import Any

import numpy as np
import pytest

from mezzotint.compile.verify import psnr_db
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.engines.by_hand import by_hand, paint, same, widened

SHARK: dict[str, Any] = {"prompt": "a shark", "guidance": 4.0, "seed": 9, "return_latents": True}
CACHED = Request(**SHARK, steps=9, cache_interval=3, guidance_end=0.7)
OTHERS = (
    Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", cache_interval=2),
    Request(prompt="a dog", steps=7, guidance=1.0, seed=2, sampler="dpmpp_2m", num_images=2),
    Request(prompt="a fox", steps=6, guidance=6.0, seed=3, guidance_start=0.3, cache_interval=4, decoder="tiny"),
    Request(prompt="a tree", steps=8, guidance=5.0, seed=4, cache_schedule=(0, 1, 2, 5), sampler="euler_a"),
)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m"])
@pytest.mark.parametrize(
    "caching", [{"cache_interval": 3}, {"cache_schedule": (0, 1, 4)}, {"cache_interval": 2, "guidance_start": 0.4}]
)
def test_caching_gives_what_a_loop_over_one_row_calls_gives(fast: Model, sampler: str, caching: dict[str, Any]) -> None:
    request = Request(**SHARK, steps=6, sampler=sampler, **caching)
    latents = paint(fast, request).latents
    assert latents is not None
    assert np.array_equal(latents, by_hand(fast, request))
    assert not np.array_equal(latents, by_hand(fast, Request(**SHARK, steps=6, sampler=sampler)))


@pytest.mark.parametrize("place", range(len(OTHERS) + 1))
def test_a_cached_picture_is_bit_equal_alone_and_at_any_place_among_others(fast: Model, place: int) -> None:
    alone = paint(fast, CACHED)
    mixed = generate(widened(fast), [*OTHERS[:place], CACHED, *OTHERS[place:]])[place][0]
    assert np.array_equal(alone.latents, mixed.latents)  # type: ignore[arg-type]
    assert same(alone, mixed)


def test_a_full_call_at_every_second_evaluation_stays_near_the_picture_without_caching(fast: Model) -> None:
    plain = paint(fast, Request(**SHARK, steps=25)).pixels
    near, far = (paint(fast, Request(**SHARK, steps=25, cache_interval=n)).pixels for n in (2, 25))
    assert plain is not None
    assert near is not None
    assert far is not None
    assert psnr_db(plain, near) > 30 > psnr_db(plain, far)


def test_a_decoder_in_parts_gives_the_whole_ones_picture(fast: Model, emoji: Model) -> None:
    request = Request(**SHARK, steps=4, num_images=2)
    for cut, whole in zip(generate(fast, [request])[0], generate(emoji, [request])[0], strict=True):
        assert same(cut, whole)
        assert np.array_equal(cut.latents, whole.latents)


def test_the_tiny_decoder_decodes_the_same_latents(fast: Model) -> None:
    full, tiny = (paint(fast, Request(**SHARK, steps=4, decoder=decoder)) for decoder in ("full", "tiny"))
    assert np.array_equal(full.latents, tiny.latents)  # type: ignore[arg-type]
    assert tiny.pixels is not None
    assert tiny.pixels.shape == (64, 64, 3)
    assert not same(full, tiny)
