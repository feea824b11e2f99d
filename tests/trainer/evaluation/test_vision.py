"""CLIP and DINO from folders, with small random models: the measures are cosines, and folders without are refused."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.evaluation.vision import Clip, Dino
from tests.conftest import EMOJI

SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    clip, dino = tmp_path_factory.mktemp("clip"), tmp_path_factory.mktemp("dino")
    transformers.set_seed(0)
    config = transformers.CLIPConfig(
        text_config=SMALL | {"vocab_size": 3219, "max_position_embeddings": 24, "eos_token_id": 3218},
        vision_config=SMALL | {"image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    transformers.CLIPModel(config).save_pretrained(clip)
    size = {"height": 32, "width": 32}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(clip)
    transformers.AutoTokenizer.from_pretrained(EMOJI / "tokenizer").save_pretrained(clip)
    transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, image_size=32, patch_size=8)).save_pretrained(dino)
    transformers.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=size).save_pretrained(dino)
    return clip, dino


def pictures(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)) for _ in range(count)]


def test_a_picture_of_the_subject_itself_has_a_cosine_of_one(folders: tuple[Path, Path]) -> None:
    clip, dino = folders
    own = pictures(1)
    images = np.stack([np.array(own[0])] * 20)
    found = Clip(clip).measure(images, ["a sks cat"] * 20, own) | Dino(dino).measure(images, own)
    assert found["subject: CLIP-I"] == pytest.approx([1.0] * 20, abs=1e-5)
    assert found["subject: DINO"] == pytest.approx([1.0] * 20, abs=1e-5)
    assert (np.abs(found["subject: CLIP-T"]) < 1).all()


def test_scores_are_means_over_the_subjects_pictures(folders: tuple[Path, Path]) -> None:
    clip = Clip(folders[0])
    a, b = pictures(2)
    image = np.array(a)[None]
    both, one, other = (clip.measure(image, ["a cat"], own)["subject: CLIP-I"][0] for own in ([a, b], [a], [b]))
    assert both == pytest.approx((one + other) / 2, abs=1e-6)
    assert other < one


def test_a_prompt_counts_in_clip_t_alone(folders: tuple[Path, Path]) -> None:
    clip, own = Clip(folders[0]), pictures(1)
    image = np.array(own[0])[None]
    first, second = (clip.measure(image, [prompt], own) for prompt in ("a cat", "a volcano on a red background"))
    assert first["subject: CLIP-I"] == second["subject: CLIP-I"]
    assert first["subject: CLIP-T"] != second["subject: CLIP-T"]


def test_a_folder_without_a_model_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(TrainConfigError, match="holds no CLIPModel"):
        Clip(tmp_path)
    with pytest.raises(TrainConfigError, match="holds no AutoModel"):
        Dino(tmp_path)
