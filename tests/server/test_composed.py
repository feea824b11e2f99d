"""Composed prompts, variations and textual inversion from the front end to the picture's file, with a real bundle."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from safetensors.numpy import save_file

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.picture import encode_picture, parse_parameters, read_parameters
from mezzotint.engines.request import Request
from mezzotint.server.rates import unet_rows
from tests.fakes import fake_model
from tests.server.real import serving
from tests.server.test_costs import measured_costs

NEIGHBOURS = (
    {"prompt": "a cat face", "steps": 4, "sampler": "euler", "guidance": 3.0, "seed": 1},
    {"prompt": "a hot beverage AND a tree :0.5 AND a toy", "steps": 5, "guidance": 2.0, "seed": 2, "num_images": 2},
    {"prompt": "a toy", "steps": 6, "sampler": "heun", "guidance": 5.0, "seed": 3, "guidance_end": 0.5},
    {"prompt": "a fox", "steps": 5, "guidance": 1.0, "seed": 7, "subseed": 2, "subseed_strength": 0.2},
)
PICTURE = encode_picture(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
MINE = (
    {"prompt": "a shark AND a hat :0.5", "image": PICTURE, "strength": 0.6, "subseed": 4, "subseed_strength": 0.3},
    {"prompt": "a shark AND a blue background :0.7", "negative_prompt": "a cat"},
    {"prompt": "a shark", "subseed": 8, "subseed_strength": 0.3, "sampler": "euler_a"},
    {"prompt": "a toy on a blue background", "guidance_start": 0.2},
    {"prompt": "[a shark|(a toy:1.2)] AND a hat BREAK blue :0.4", "subseed": 3, "subseed_strength": 0.1},
)


@pytest.fixture(scope="module")
def words(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadOptions:
    """How to load the bundle with one word more, of two vectors."""
    table = np.load(emoji_bundle / read_manifest(emoji_bundle).text.embeddings)
    path = tmp_path_factory.mktemp("words") / "toy.safetensors"
    save_file({"emb_params": np.ascontiguousarray(table[[500, 900]], np.float32)}, path)
    return LoadOptions(devices={}, cache=False, embeddings=(EmbeddingPath(path),))


async def test_every_kind_gives_the_same_bytes_alone_and_among_all_others_and_says_what_it_was_made_of(
    emoji_bundle: Path, words: LoadOptions
) -> None:
    async with serving(emoji_bundle, load=words) as (_, address), AsyncClient(address) as client:
        alone = [(await client.generate(**request, steps=6, seed=42)).files[0] for request in MINE]
        others = [client.generate(**neighbour) for neighbour in NEIGHBOURS]
        among = await asyncio.gather(*others, *(client.generate(**request, steps=6, seed=42) for request in MINE))
    assert [result.files[0] for result in among[len(others) :]] == alone
    _, composed, varied, inverted, both = (parse_parameters(read_parameters(data)) for data in alone)
    assert composed["Prompt"] == "a shark AND a blue background :0.7"
    assert (varied["Seed"], varied["Variation seed"], varied["Variation seed strength"]) == ("42", "8", "0.3")
    assert inverted["TI hashes"] == both["TI hashes"]
    assert inverted["TI hashes"].startswith("toy: ")
    assert "Variation seed" not in composed
    assert "TI hashes" not in varied


async def test_several_pictures_are_those_of_seeds_in_a_row_and_variations_those_of_subseeds(
    emoji_bundle: Path,
) -> None:
    varied: dict[str, Any] = {"steps": 2, "seed": 5, "subseed_strength": 0.3}
    async with serving(emoji_bundle) as (_, address), AsyncClient(address) as client:
        single = [(await client.generate("a cat AND a hat", steps=2, seed=seed)).files[0] for seed in (5, 6, 7)]
        several = await client.generate("a cat AND a hat", steps=2, seed=5, num_images=3)
        variations = [(await client.generate("a cat", **varied, subseed=subseed)).files[0] for subseed in (8, 9)]
        both = await client.generate("a cat", **varied, subseed=8, num_images=2)
    assert (several.files, several.seeds) == (single, [5, 6, 7])
    assert (both.files, both.seeds) == (variations, [5, 5])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"prompt": " AND ".join("abcdefgh")},
            "prompt: its 8 parts between ANDs take 9 rows, but bundle emoji was built",
        ),
        ({"prompt": "a AND b :1000"}, "prompt: a part between ANDs has the weight 1000; must be between -100 and 100"),
        ({"prompt": "a AND b :-1", "guidance_end": 0.5}, "prompt: the weights of its parts between ANDs add up to 0"),
        ({"prompt": "a", "subseed_strength": 2.0}, "subseed_strength=2.0: must be between 0 and 1"),
        ({"prompt": "a", "subseed": -1}, "subseed=-1: must be between 0 and"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_sentence(
    emoji_bundle: Path, options: dict[str, Any], sentence: str
) -> None:
    async with serving(emoji_bundle) as (_, address), AsyncClient(address) as client:
        with pytest.raises(MezzotintClientError) as refused:
            await client.generate(**options, steps=2, seed=1)
    assert refused.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.value.message.startswith(sentence)


def test_admission_counts_a_row_for_each_part(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    costs = measured_costs()
    (plain,) = model.start(Request(prompt="a cat", steps=4))
    (composed,) = model.start(Request(prompt="a cat AND a hat AND a dog", steps=4))
    (ended,) = model.start(Request(prompt="a cat AND a hat AND a dog", steps=4, guidance_end=0.5))
    assert [unet_rows([image]) for image in (plain, composed, ended)] == [8, 16, 14]
    rows = [costs.work_left(image).denoising / 0.075 for image in (plain, composed, ended)]
    assert rows == pytest.approx([8, 16, 14])
