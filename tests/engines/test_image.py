"""Batches on a device of their own: latents, guidance and samplers stay there, and nothing is read back by accident."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines import device
from mezzotint.engines.component import Component
from mezzotint.engines.generate import generate
from mezzotint.engines.image import Image
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import NUM_KEPT
from tests.elsewhere import ElsewhereEngine, Reads, elsewhere, watch
from tests.fake_manifest import CHANNELS
from tests.fakes import fake_model

REQUESTS = [
    Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", return_latents=True),
    Request(prompt="a dog", steps=7, guidance=1.0, seed=2, sampler="dpmpp_2m", preview_every=2, return_latents=True),
    Request(prompt="a hat", steps=6, guidance=5.0, guidance_end=0.6, seed=5, cache_interval=3, return_latents=True),
    Request(prompt="blue", steps=4, guidance=2.0, seed=6, cache_schedule=(0, 2), decoder="tiny", return_latents=True),
    Request(prompt="red", steps=6, guidance=6.0, seed=3, sampler="euler_a", num_images=2, return_latents=True),
]
LATENT, PICTURE = (CHANNELS, 8, 8), (3, 32, 32)
NUM_PREVIEWS = 3  # of seven steps, every second
NUM_IMAGES = 6


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return watch(monkeypatch)


def paint(
    folder: Path, reads: Reads, *components: Component, requests: list[Request] = REQUESTS
) -> tuple[list[Image], list[Image], Model]:
    """Paint with all engines on the host, then with those of ``components`` on the device."""
    model, _ = fake_model(folder, step_cache=True, cut_decoder=True, tiny_decoder=True)
    engines = {
        key: ElsewhereEngine(engine, reads) if key[0] in components else engine for key, engine in model.engines.items()
    }
    there = Model(model.manifest, model.digest, model.prompts, engines, model.max_rows)  # type: ignore[arg-type]
    pictures = [[image for images in generate(m, requests) for image in images] for m in (model, there)]
    return pictures[0], pictures[1], there


def assert_same(some: list[Image], others: list[Image]) -> None:
    for a, b in zip(some, others, strict=True):
        assert a.latents is not None
        assert b.latents is not None
        assert np.array_equal(a.latents, b.latents)
        assert b.pixels == pytest.approx(a.pixels)


def test_pictures_of_a_device_equal_the_hosts_and_nothing_but_them_is_read_back(tmp_path: Path, reads: Reads) -> None:
    here, there, model = paint(tmp_path, reads, *Component)
    assert_same(here, there)
    assert sorted(reads.read) == sorted([LATENT] * (NUM_PREVIEWS + NUM_IMAGES) + [PICTURE] * NUM_IMAGES)
    for (component, _), engine in model.engines.items():
        on_host = component is Component.TEXT_ENCODER  # token embeddings are looked up there
        assert engine.given == {device.xp(np.zeros(1)) if on_host else array_api_strict}  # type: ignore[attr-defined]


def test_a_step_of_a_sampler_without_noise_is_given_numbers_alone(tmp_path: Path, reads: Reads) -> None:
    paint(tmp_path, reads, *Component, requests=REQUESTS[:4])
    large = [shape for shape in reads.given if math.prod(shape) >= math.prod(LATENT)]
    assert large == [(1 + NUM_KEPT, *LATENT)] * 4  # what each picture began with


def test_a_text_encoder_and_a_decoder_on_the_host_serve_a_unet_elsewhere(tmp_path: Path, reads: Reads) -> None:
    here, there, model = paint(tmp_path, reads, Component.UNET)
    assert_same(here, there)
    for (component, _), engine in model.engines.items():
        if component is Component.UNET:
            assert engine.given == {array_api_strict}  # type: ignore[attr-defined]


@pytest.mark.parametrize("read", [np.asarray, lambda array: np.stack([array]), np.from_dlpack, float, bool])
def test_the_guard_sees_a_copy_that_is_not_meant(reads: Reads, read: Callable[[Any], Any]) -> None:
    with pytest.raises(AssertionError, match=r"outside of device\.to_host"):
        read(elsewhere(np.float32(1)))


def test_an_array_is_placed_beside_another_and_copied_only_where_it_is_not_there_yet(reads: Reads) -> None:
    host, there = np.ones(2, np.float32), elsewhere(np.ones(2, np.float32))
    assert device.place(host, host) is host
    assert device.place(there, there) is there
    assert not reads.read
    assert not reads.given
    assert device.place(host, there).device == there.device
    assert device.place(there, host).tolist() == [1, 1]
    assert (reads.read, reads.given) == ([(2,)], [(2,)])
