"""Runs of a miniature as the command makes them: resumed, averaged, on two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.config_file import make_config
from mezzotint.trainer.loggers import LINES, LOSS, read_lines
from mezzotint.trainer.run import train
from tests.conftest import ROOT
from tests.miniatures import write_sd15_miniature, write_sd21_miniature
from tests.trainer.bases import read_base

SUBJECT = ROOT / "models" / "subject"
RELATIVE = 1e-4
"""How far a step's loss, and the weights as one vector, may be from those on one process, over themselves.

Single weights stray further: Adam makes whole steps of gradients that are nothing but rounding.
"""


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15_miniature(tmp_path_factory.mktemp("bases") / "sd15")


@pytest.fixture(scope="module")
def class_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class pictures of a user's own, so that none is painted."""
    folder = tmp_path_factory.mktemp("cats")
    for number, path in enumerate(sorted(SUBJECT.glob("*.png"))):
        shutil.copy(path, folder / f"cat-{number}.png")
    return folder


def options(output: Path, class_images: Path, **more: Any) -> dict[str, Any]:
    return {
        "instance_data_dir": str(SUBJECT),
        "instance_prompt": "a photo of a sks cat",
        "class_data_dir": str(class_images),
        "class_prompt": "a photo of a cat",
        "num_class_images": 5,
        "output_dir": str(output),
        "resolution": 64,
        "train_batch_size": 2,
        "max_train_steps": 4,
        "learning_rate": 1e-4,
        "checkpointing_steps": 2,
        "validation_steps": 3,
        "report_to": "none",
        "accelerator": "cpu",
        "devices": 1,
        **more,
    }


def trained(miniature: Path, **values: Any) -> None:
    train(make_config(values), read_base(miniature))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All weights that a run wrote in float32."""
    paths = sorted([*folder.glob("model/*/*.safetensors"), *folder.glob("lora/*.safetensors")])
    found = {f"{path.relative_to(folder)}/{name}": value for path in paths for name, value in load_file(path).items()}
    assert found
    return found


def apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """Return the length of what all weights differ by, over theirs."""
    differences = sum(float((ours[name] - weight).square().sum()) for name, weight in theirs.items())
    return float((differences / sum(float(weight.square().sum()) for weight in theirs.values())) ** 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        {"ema_decay": 0.9, "train_text_encoder": True, "lr_scheduler": "cosine", "lr_warmup_steps": 1},
        {"lora_rank": 2, "lora_dropout": 0.5, "ema_decay": 0.9, "gradient_accumulation_steps": 2},
        {"optimizer": "prodigy", "learning_rate": 1.0, "random_flip": True, "cache_latents": False},
    ],
    ids=["full with average and text encoder", "LoRA with dropout and accumulation", "Prodigy on uncached pictures"],
)
def test_a_run_that_goes_on_is_the_run_that_did_not_stop_to_the_bit(
    miniature: Path, class_images: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    trained(miniature, **options(tmp_path / "whole", class_images, **kind))
    checkpoints = tmp_path / "again" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-000002", checkpoints / "step-000002")
    trained(miniature, **options(tmp_path / "again", class_images, **kind, resume_from_checkpoint="latest"))
    whole, rest = (read_lines(tmp_path / name / "logs") for name in ("whole", "again"))
    assert [step for step in whole if LOSS in whole[step]] == [1, 2, 3, 4]
    assert [step for step in rest if LOSS in rest[step]] == [3, 4]
    for name in (LOSS, "train/prior_loss", "val/loss", "lr"):
        assert all(whole[step][name] == rest[step][name] for step in rest if name in rest[step])
    theirs, ours = weights(tmp_path / "whole"), weights(tmp_path / "again")
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    state = torch.load(checkpoints / "step-000004" / "state.ckpt", weights_only=True)["state_dict"]
    assert all(name.startswith(("unet.", "text_encoder.")) for name in state)
    if "lora_rank" in kind:
        assert all("lora" in name for name in state)  # frozen weights are the base's


@pytest.mark.slow
def test_a_run_does_not_go_on_from_a_checkpoint_of_another_base_or_another_way_to_train(
    miniature: Path, class_images: Path, tmp_path: Path
) -> None:
    told = options(tmp_path / "run", class_images, max_train_steps=1)
    trained(miniature, **told)
    with pytest.raises(TrainError, match="has checkpoints of an earlier run"):
        trained(miniature, **told)
    told["resume_from_checkpoint"] = "latest"
    with pytest.raises(TrainError, match=r"model \(base [0-9a-f]+\) than this run's \(base [0-9a-f]+\); resume"):
        trained(write_sd21_miniature(tmp_path / "sd21"), **told)
    with pytest.raises(TrainError, match=r"LoRA none.* than this run's \(LoRA rank 4"):
        trained(miniature, **told, lora_rank=4)


@pytest.mark.slow
def test_a_rate_that_was_too_high_can_be_lowered_on_the_way(
    miniature: Path, class_images: Path, tmp_path: Path
) -> None:
    kind = {"lr_scheduler": "cosine", "lr_warmup_steps": 1}
    trained(miniature, **options(tmp_path / "whole", class_images, **kind))
    checkpoints = tmp_path / "again" / "checkpoints"
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step-000002", checkpoints / "step-000002")
    lower = {**kind, "learning_rate": 1e-6, "resume_from_checkpoint": "latest"}
    trained(miniature, **options(tmp_path / "again", class_images, **lower))
    whole, rest = (read_lines(tmp_path / name / "logs") for name in ("whole", "again"))
    rates = {step: values["lr"] for step, values in rest.items() if "lr" in values}
    assert rates == pytest.approx({step: whole[step]["lr"] / 100 for step in (3, 4)})
    assert weights(tmp_path / "again").keys() == weights(tmp_path / "whole").keys()


@pytest.mark.slow
def test_a_disk_that_is_full_while_training_is_one_sentence(
    miniature: Path, class_images: Path, tmp_path: Path
) -> None:
    logs = tmp_path / "run" / "logs"
    logs.mkdir(parents=True)
    (logs / LINES).symlink_to("/dev/full")
    with pytest.raises(TrainError, match=r"cannot be written \(no space left on device\); make room and begin again"):
        trained(miniature, **options(tmp_path / "run", class_images))


@pytest.mark.slow
def test_two_processes_have_the_losses_and_weights_of_one_with_the_same_global_batch(
    miniature: Path, class_images: Path, tmp_path: Path
) -> None:
    """Gloo and DDP on CPUs, started by the command itself."""
    alike = {"max_train_steps": 6, "checkpointing_steps": 3, "train_text_encoder": True, "ema_decay": 0.9}
    cuts: dict[str, dict[str, Any]] = {
        "one": {"train_batch_size": 4},
        "accumulated": {"train_batch_size": 2, "gradient_accumulation_steps": 2},
        "two": {"train_batch_size": 2, "devices": 2, "strategy": "ddp"},
    }
    for name, cut in cuts.items():
        told = tmp_path / f"{name}.yaml"
        told.write_text(json.dumps(options(tmp_path / name, class_images, **alike, **cut)))
        command = [sys.executable, "-m", "mezzotint", "train", str(miniature), "--config", str(told)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    lines = {name: read_lines(tmp_path / name / "logs") for name in cuts}
    of = {name: weights(tmp_path / name) for name in cuts}
    for name in ("accumulated", "two"):
        for key in (LOSS, "val/loss", "lr"):
            one, other = ({s: v[key] for s, v in lines[each].items() if key in v} for each in ("one", name))
            assert other == pytest.approx(one, rel=RELATIVE)
        assert apart(of[name], of["one"]) < RELATIVE
    assert not (tmp_path / "two" / "checkpoints" / ".step-000006.part").exists()
    assert os.readlink(tmp_path / "two" / "checkpoints" / "last") == "step-000006"
