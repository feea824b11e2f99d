"""Batches on another array library than numpy: latents, guidance and sampling know the array API alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines import device
from mezzotint.engines.manifest import Component
from mezzotint.engines.model import Model, generate
from mezzotint.engines.request import Request
from tests.fakes import fake_model

REQUESTS = [
    Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", return_latents=True),
    Request(prompt="a dog", steps=7, guidance=1.0, seed=2, sampler="dpmpp_2m", preview_every=2, return_latents=True),
    Request(prompt="a hat", steps=6, guidance=5.0, guidance_end=0.6, seed=5, cache_interval=3, return_latents=True),
    Request(prompt="blue", steps=4, guidance=2.0, seed=6, cache_schedule=(0, 2), decoder="tiny", return_latents=True),
    Request(prompt="red", steps=6, guidance=6.0, seed=3, sampler="euler_a", num_images=2, return_latents=True),
]


class ElsewhereEngine:
    """An engine of another device: it takes and gives array_api_strict arrays."""

    def __init__(self, engine: Any, *, from_host: bool) -> None:
        self.spec, self.device, self.row_counts = engine.spec, engine.device, engine.row_counts
        self._engine = engine
        self._from_host = from_host

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        if not self._from_host:
            assert all(device.xp(array) is array_api_strict for array in inputs.values())
        host = {name: device.to_host(array) for name, array in inputs.items()}
        return {name: array_api_strict.asarray(array) for name, array in self._engine.run(host).items()}

    def close(self) -> None:
        self._engine.close()


def test_pictures_on_another_array_library_equal_numpys(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, step_cache=True, cut_decoder=True, tiny_decoder=True)
    engines = {
        (component, variant): ElsewhereEngine(engine, from_host=component is Component.TEXT_ENCODER)
        for (component, variant), engine in model.engines.items()
    }
    elsewhere = Model(model.manifest, model.digest, model.prompts, engines, model.max_rows)  # type: ignore[arg-type]
    for here, there in zip(generate(model, REQUESTS), generate(elsewhere, REQUESTS), strict=True):
        for a, b in zip(here, there, strict=True):
            assert a.latents is not None
            assert b.latents is not None
            assert np.array_equal(a.latents, b.latents)
            assert b.pixels == pytest.approx(a.pixels)
