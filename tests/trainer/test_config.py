"""What a run is told: one mapping in layers, whose whole is saved and read again."""

from pathlib import Path
from typing import Any

import pytest

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.config_file import load_config, make_config, read_values

CAT = {"instance_data_dir": "cats", "instance_prompt": "a photo of a sks cat"}
CLASS = {"class_prompt": "a photo of a cat"}


def test_a_saved_configuration_reads_back_as_it_was(tmp_path: Path) -> None:
    config = make_config(CAT, CLASS, {"learning_rate": 1e-4, "lora_layers": ["to_q"], "devices": 2})
    config.save(tmp_path / "config.yaml")
    assert load_config(tmp_path / "config.yaml") == config
    assert set(read_values(tmp_path / "config.yaml")) == set(TrainConfig.model_fields)


def test_later_layers_go_before_earlier_ones() -> None:
    config = make_config(CAT, {"resolution": 64, "seed": 1}, {"seed": 2})
    assert (config.resolution, config.seed, config.learning_rate) == (64, 2, 5e-6)


def test_a_class_prompt_asks_for_prior_preservation_unless_it_is_refused() -> None:
    assert not make_config(CAT).with_prior_preservation
    assert make_config(CAT, CLASS).with_prior_preservation
    assert not make_config(CAT, CLASS, {"with_prior_preservation": False}).with_prior_preservation


def test_captions_are_encoded_once_where_the_text_encoder_stays_as_it_is() -> None:
    assert make_config(CAT).pre_compute_text_embeddings
    assert not make_config(CAT, {"train_text_encoder": True}).pre_compute_text_embeddings


def test_concepts_each_have_their_own_pictures_and_prompts() -> None:
    dog = {"instance_data_dir": "dogs", "instance_prompt": "a photo of a xyz dog", "class_prompt": "a photo of a dog"}
    config = make_config({"concepts": [{**CAT, **CLASS}, dog]})
    assert [str(concept.instance_data_dir) for concept in config.all_concepts] == ["cats", "dogs"]
    assert config.with_prior_preservation
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "instance_data_dir: give it, or `concepts` in a file, and not both"),
        ({"instance_data_dir": "cats"}, "instance_prompt: give one, such as"),
        ({**CAT, "with_prior_preservation": True}, "class_prompt: give one, such as"),
        ({**CAT, "learning_rate": -1}, "learning_rate=-1: input should be greater than 0"),
        ({**CAT, "seeed": 1, "repeats": 0}, r"repeats=0: .*; seeed: is no option \(did you mean seed\?\)"),
        (
            {"concepts": [{**CAT, "class_data_dir": "c", "class_prompt": kind} for kind in ("a cat", "a dog")]},
            "class_data_dir: two class prompts have one; give each a folder of its own, or none",
        ),
        ({"concepts": [{**CAT, "class_prmpt": "a cat"}]}, r"concepts\.0\.class_prmpt: .*mean class_prompt"),
        (
            {**CAT, "train_text_encoder": True, "pre_compute_text_embeddings": True},
            "pre_compute_text_embeddings: not with train_text_encoder",
        ),
    ],
)
def test_values_that_cannot_be_used_are_named_in_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TrainConfigError, match=sentence):
        make_config(values)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "learnin-rate: 1\nfoo: 2\n",
            r"learnin_rate: is no option \(did you mean learning_rate\?\); foo: is no option",
        ),
        ("- a\n", "must be a list of `option: value`"),
        ("a: [", "is not YAML"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, sentence: str) -> None:
    path = tmp_path / "run.yaml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainConfigError, match=rf"run\.yaml: {sentence}"):
        read_values(path)


def test_a_file_with_a_wrong_value_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("instance_data_dir: cats\ninstance_prompt: a sks cat\nseed: x\n", encoding="utf-8")
    with pytest.raises(TrainConfigError, match=r"run\.yaml: seed='x': input should be a valid integer"):
        load_config(path)
