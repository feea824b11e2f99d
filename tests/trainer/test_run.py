"""A run as a whole, where it must not begin; what it leaves is seen in ``tests/cli/test_train.py``."""

from pathlib import Path
from typing import Any

import pytest

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.config_file import make_config
from mezzotint.trainer.run import train
from tests.conftest import EMOJI
from tests.trainer.bases import read_base
from tests.trainer.conftest import SUBJECT


@pytest.fixture(scope="module")
def base() -> Base:
    """A base of this module's own, since a run changes its modules."""
    return read_base(EMOJI)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"accelerator": "cpu", "optimizer": "adamw-8bit"}, "optimizer=adamw-8bit: this run is on cpu"),
        ({"accelerator": "cpu", "mixed_precision": "fp16"}, "mixed_precision=fp16: needs an NVIDIA GPU"),
        ({"strategy": "fsdp", "lora_rank": 2}, "strategy=fsdp: shards whole models"),
        ({"accelerator": "abacus"}, "accelerator=abacus, devices=auto, strategy=auto: Lightning cannot run so here"),
        ({"resume_from_checkpoint": "step-000007"}, "step-000007: is no checkpoint"),
    ],
)
def test_what_cannot_be_run_is_refused_before_a_picture_is_painted(
    base: Base, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    told = {"instance_data_dir": SUBJECT, "instance_prompt": "a photo of a sks cat", "class_prompt": "a photo of a cat"}
    config = make_config(
        told, {"resolution": 64, "class_data_dir": tmp_path / "class", "output_dir": tmp_path / "run", **options}
    )
    with pytest.raises(TrainError, match=sentence):
        train(config, base)
    assert not (tmp_path / "class").exists()
    assert not (tmp_path / "run" / "config.yaml").exists()
