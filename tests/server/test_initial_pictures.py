"""Initial pictures and masks through a server of the real demo model."""

import asyncio
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.picture import parse_parameters, read_parameters
from tests.server.real import serving
from tests.server.test_real_bundle import NEIGHBOURS, PROMPT

COMMON: Mapping[str, Any] = {"steps": 6, "guidance": 4.0, "seed": 11, "sampler": "euler_a"}


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "png")
    return file.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


RAMP = np.linspace(0, 255, 64, dtype=np.uint8)
PICTURE = np.stack(np.broadcast_arrays(RAMP[:, None], RAMP[None], np.uint8(90)), axis=-1)
MASK = np.zeros((64, 64), np.uint8)
MASK[20:50, 10:40] = 255


async def test_a_masked_picture_is_the_same_bytes_alone_and_among_others_and_its_rest_is_unchanged(
    emoji_bundle: Path,
) -> None:
    start = {"image": png(PICTURE), "mask": png(MASK), "strength": 0.7}
    steps: list[tuple[int, int]] = []
    async with serving(emoji_bundle) as (_, address), AsyncClient(address) as client:
        alone = await client.generate(
            PROMPT, **COMMON, **start, on_progress=lambda told: steps.append((told.step, told.steps))
        )
        others = [client.generate(**neighbour) for neighbour in NEIGHBOURS]
        others += [client.generate("a cat", image=png(PICTURE), steps=5, strength=0.5, seed=3)]
        *_, among = await asyncio.gather(*others, client.generate(PROMPT, **COMMON, **start))
    assert alone.files == among.files
    assert steps == [(i, 4) for i in range(1, 5)]
    made = pixels_of(alone.files[0])
    assert np.array_equal(made[MASK == 0], PICTURE[MASK == 0])
    assert (made[MASK == 255] != PICTURE[MASK == 255]).any(axis=1).mean() > 0.9
    parameters = parse_parameters(read_parameters(alone.files[0]))
    assert {key: parameters[key] for key in ("Steps", "Denoising strength", "Mask blur")} == {
        "Steps": "6",
        "Denoising strength": "0.7",
        "Mask blur": "0",
    }


async def test_what_cannot_be_begun_with_is_refused_in_one_sentence_and_little_strength_makes_little(
    emoji_bundle: Path,
) -> None:
    async with serving(emoji_bundle) as (_, address), AsyncClient(address) as client:
        for start in (
            {"image": b"no picture"},
            {"image": png(PICTURE), "mask": png(MASK[:32])},
            {"image": png(PICTURE), "strength": 0.01},
            {"image": png(PICTURE), "resize_mode": "squash"},
            {"mask": png(MASK)},
        ):
            with pytest.raises(MezzotintClientError) as refused:
                await client.generate(PROMPT, **COMMON, **start)
            assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
            assert "\n" not in refused.value.message
        made = [await client.generate(PROMPT, **COMMON, image=png(PICTURE), strength=share) for share in (0.2, 0.9)]
    near, far = (np.abs(pixels_of(each.files[0]).astype(float) - PICTURE).mean() for each in made)
    assert near < far / 2
