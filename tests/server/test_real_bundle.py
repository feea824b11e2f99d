import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mezzotint import AsyncClient
from mezzotint.proto.results import Result
from tests.server.real import serving

PROMPT = "a shark on a blue background"
NEIGHBOURS = (
    {"prompt": "a cat face", "steps": 4, "sampler": "euler", "guidance": 3.0, "seed": 1},
    {"prompt": "a hot beverage", "steps": 9, "sampler": "DPM++ 2M Karras", "guidance": 1.0, "seed": 2},
    {"prompt": "a dog face", "steps": 6, "sampler": "heun", "guidance": 5.0, "seed": 3},
    {"prompt": "", "steps": 7, "sampler": "euler_a", "guidance": 2.0, "seed": 4},
    {"prompt": "a tree", "steps": 3, "sampler": "ddim", "eta": 0.5, "guidance": 4.0, "seed": 5},
    {"prompt": "a pizza", "steps": 8, "guidance": 0.0, "seed": 6, "num_images": 2},
    {"prompt": "a fox", "steps": 5, "guidance": 7.5, "seed": 7, "negative_prompt": "red"},
    {"prompt": "a bee", "steps": 4, "sampler": "DPM++ SDE Karras", "guidance": 3.0, "seed": 8},
    {"prompt": "(a fox:1.3) BREAK [a cat|a dog] BREAK a hat", "steps": 5, "guidance": 4.0, "seed": 10},
    {"prompt": "a [red:blue:0.5] bird", "steps": 6, "clip_skip": 2, "negative_prompt": "a BREAK b BREAK c", "seed": 11},
    {"prompt": "a bus", "steps": 4, "sampler": "DPM++ 2S a", "sigmas": "automatic", "guidance": 1.0, "seed": 9},
)  # fmt: skip

FAST_NEIGHBOURS = (
    {"prompt": "a cat face", "steps": 6, "sampler": "heun", "guidance": 3.0, "seed": 1, "cache_interval": 2},
    {"prompt": "a hot beverage", "steps": 9, "guidance": 4.0, "seed": 2, "guidance_start": 0.3, "decoder": "tiny"},
    {"prompt": "a dog face", "steps": 7, "guidance": 5.0, "seed": 3, "cache_schedule": [0, 1, 4], "num_images": 2},
    {"prompt": "a fox", "steps": 5, "guidance": 1.0, "seed": 4, "cache_interval": 3},
    {"prompt": "a tree", "steps": 8, "guidance": 7.5, "seed": 5},
)  # fmt: skip
_SERVE_ONE = """
import asyncio, sys
from pathlib import Path
from mezzotint import AsyncClient
from mezzotint.engines.bundle import LoadOptions
from mezzotint.server.app import Server, load_core
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig

async def main():
    server = Server(Catalog(["emoji"]))
    server.catalog.add(load_core(Path(sys.argv[1]), LoadOptions(devices={}, cache=False), CoreConfig()))
    port = await server.start("127.0.0.1", 0)
    async with AsyncClient(f"127.0.0.1:{port}") as client:
        result = await client.generate("a cat face", steps=2, seed=1)
    await server.stop(5.0)
    print(len(result.files[0]))

asyncio.run(main())
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "diffusers", "transformers", "onnx"})
print("heavy:", ",".join(heavy))
"""


async def _ask(client: AsyncClient, **options: Any) -> Result:
    return await client.generate(PROMPT, steps=10, guidance=4.0, seed=42, **options)


async def _serve(bundle: Path, neighbours: Sequence[Mapping[str, Any]], **options: Any) -> tuple[bytes, int]:
    """Return the picture of the request, among others or alone, and the images of all."""
    async with serving(bundle) as (_, address), AsyncClient(address) as client:
        others = [client.generate(**neighbour) for neighbour in neighbours]
        *rest, mine = await asyncio.gather(*others, _ask(client, **options))
    return mine.files[0], sum(len(result.files) for result in (*rest, mine))


async def test_the_same_seed_gives_the_same_bytes_alone_among_eleven_others_and_after_a_restart(
    emoji_bundle: Path,
) -> None:
    alone, _ = await _serve(emoji_bundle, ())
    among, num_images = await _serve(emoji_bundle, NEIGHBOURS)
    again, _ = await _serve(emoji_bundle, ())
    assert num_images == 13
    assert alone == again
    assert alone == among


@pytest.mark.parametrize(
    "options",
    [
        {"cache_interval": 3, "guidance_start": 0.1, "guidance_end": 0.8},
        pytest.param({"cache_schedule": [0, 1, 2, 6], "decoder": "tiny"}, marks=pytest.mark.slow),
        pytest.param({}, marks=pytest.mark.slow),
    ],
    ids=["interval", "schedule", "plain"],
)
async def test_a_picture_is_the_same_bytes_alone_and_among_requests_with_caching_intervals_and_decoders(
    fast_bundle: Path, options: dict[str, Any]
) -> None:
    alone, _ = await _serve(fast_bundle, (), **options)
    among, num_images = await _serve(fast_bundle, FAST_NEIGHBOURS, **options)
    assert num_images == 7
    assert alone == among


async def test_a_preview_after_every_step_does_not_change_the_picture(emoji_bundle: Path) -> None:
    previews: list[bytes] = []
    async with serving(emoji_bundle) as (_, address), AsyncClient(address) as client:
        plain = await client.generate(PROMPT, steps=3, seed=1)
        seen = await client.generate(
            PROMPT, steps=3, seed=1, preview_every=1, on_progress=lambda progress: previews.append(progress.preview)
        )
    assert seen.files == plain.files
    assert [preview[:2] for preview in previews] == [b"\xff\xd8"] * 3


@pytest.mark.timeout(120)
def test_serving_a_request_loads_no_torch(emoji_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SERVE_ONE, str(emoji_bundle)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    num_bytes, heavy = done.stdout.split("\n")[:2]
    assert int(num_bytes) > 100
    assert heavy == "heavy: "
