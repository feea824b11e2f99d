"""Hires fix through the server: steps and previews of both walks, what it costs, and what a picture says of it."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.hires import Hires
from mezzotint.engines.picture import parse_parameters, read_parameters
from mezzotint.engines.request import Request
from mezzotint.server.costs import EngineCosts
from mezzotint.server.limits import RequestLimits
from mezzotint.server.rates import unet_rows
from tests.fakes import fake_model
from tests.server.real import serving

COMMON: dict[str, Any] = {"prompt": "a shark", "steps": 4, "guidance": 4.0, "seed": 11}
TWICE: dict[str, Any] = {"hires_scale": 2.0, "hires_steps": 3, "hires_strength": 0.5}


async def test_a_request_paints_twice_and_says_so(large_bundle: Path) -> None:
    steps: list[tuple[int, int]] = []
    async with serving(large_bundle) as (_, address), AsyncClient(address) as client:
        alone = await client.generate(**COMMON, **TWICE, on_progress=lambda told: steps.append((told.step, told.steps)))
        others = [client.generate("a cat", steps=5, seed=seed, width=128) for seed in (1, 2)]
        *_, among, pixels = await asyncio.gather(
            *others,
            client.generate(**COMMON, **TWICE),
            client.generate(**COMMON, **TWICE, hires_upscaler="lanczos"),
        )
    assert steps == [(i, 7) for i in range(1, 8)]
    assert alone.files == among.files
    assert alone.files != pixels.files
    parameters = parse_parameters(read_parameters(alone.files[0]))
    kept = ("Steps", "Size", "Denoising strength", "Hires upscale", "Hires steps", "Hires upscaler")
    assert [parameters[key] for key in kept] == ["4", "64x64", "0.5", "2", "3", "Latent"]
    assert parse_parameters(read_parameters(pixels.files[0]))["Hires upscaler"] == "Lanczos"


async def test_a_size_that_was_not_compiled_is_refused(large_bundle: Path) -> None:
    async with serving(large_bundle) as (_, address), AsyncClient(address) as client:
        with pytest.raises(MezzotintClientError) as refused:
            await client.generate(**COMMON, hires_scale=4.0)
        assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION
        assert "makes a height of 256 out of 64" in refused.value.message


def test_both_walks_are_known_to_whoever_counts(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True)
    costs = EngineCosts(model.manifest)
    plain = Request(prompt="a cat", steps=4, guidance=7.0)
    twice = Request(prompt="a cat", steps=4, guidance=7.0, hires=Hires(2.0, 3, 0.5))
    (image,), (once,) = model.start(twice), model.start(plain)
    assert unet_rows((image,)) == unet_rows((once,)) + 3 * 2
    work, of_first = costs.work_left(image), costs.work_left(once)
    assert work.denoising == pytest.approx(of_first.denoising + 3 * 2 * 4)  # of four times the pixels


def test_limits_look_at_what_a_picture_becomes(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    request = Request(prompt="a cat", steps=4, hires=Hires(2.0, 3, 0.5))
    RequestLimits(max_steps=7, max_pixels=64 * 64).check(request, model.manifest)
    for limits in (RequestLimits(max_steps=6), RequestLimits(max_pixels=64 * 64 - 1)):
        with pytest.raises(Exception, match="this server allows at most"):
            limits.check(request, model.manifest)
