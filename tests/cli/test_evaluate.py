"""``mezzotint evaluate`` on a run's folder: pages are written, and what did not change has not changed."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mezzotint.cli.evaluate import _tuned, command
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines.errors import InvalidRequest, TrainConfigError
from mezzotint.trainer.config import CONFIG
from mezzotint.trainer.config_file import load_config, make_config
from tests.conftest import EMOJI, ROOT
from tests.loras import Lora

FEW = ("--share", "0.02", "--steps", "2")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that has changed nothing."""
    config = make_config(
        {
            "pretrained_model_name_or_path": str(EMOJI),
            "instance_data_dir": ROOT / "models" / "subject",
            "instance_prompt": "a photo of a sks cat",
            "class_prompt": "a photo of a cat",
            "sample_guidance": 4.0,
        }
    )
    config.save(tmp_path / CONFIG)
    (tmp_path / "model").symlink_to(EMOJI)
    return tmp_path


def evaluated(run: Path, *options: str | Path) -> dict[str, Any]:
    done = CliRunner().invoke(command, [str(run), *FEW, *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads((run / "evaluation" / "results.json").read_text(encoding="utf-8"))
    return found


def test_an_untrained_model_is_its_base_and_knows_no_subject(run: Path, emoji_bundle: Path) -> None:
    found = evaluated(run, "--before", emoji_bundle, "--bundle", f"fp32={emoji_bundle}")
    after = found["figures"]["fp32"]
    assert after["is the subject: colours, pixels and latents"][0] == 0
    assert after["others: top-1 as before"][0] == 100
    assert after["others: PSNR to the base's own picture, dB"][0] > 88
    assert found["settings"] == {"steps": 2, "guidance": 4.0}
    assert [len(asked) for asked in found["asked"].values()] == [8, 2, 1]
    assert (run / "evaluation" / "index.html").is_file()


@pytest.mark.slow
def test_the_checkpoint_in_torch_paints_as_its_engine_does(run: Path, emoji_bundle: Path) -> None:
    after = evaluated(run, "--before", emoji_bundle)["figures"]["checkpoint"]
    assert after["others: PSNR to the base's own picture, dB"][0] > 40


@pytest.mark.parametrize("value", ["build/sks", "=x", "before=x"])
def test_a_bundle_without_a_name_of_its_own_is_refused(run: Path, value: str) -> None:
    with pytest.raises(InvalidRequest, match="must be NAME=FOLDER"):
        CliRunner().invoke(command, [str(run), "--bundle", value], catch_exceptions=False)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainConfigError, match="cannot be read"):
        CliRunner().invoke(command, [str(tmp_path)], catch_exceptions=False)


def told(run: Path, **values: Any) -> Path:
    """Write a run's configuration anew, with other values."""
    config = load_config(run / CONFIG)
    make_config(config.model_dump(exclude_defaults=True), values).save(run / CONFIG)
    return run


def test_the_identifier_can_be_said_where_the_run_does_not_know_it(run: Path, emoji_bundle: Path) -> None:
    told(run, class_prompt="", with_prior_preservation=False)
    with pytest.raises(TrainConfigError, match=r"identifier='': is not in the instance prompt .* say it with `--ident"):
        evaluated(run)
    options = ("--identifier", "sks", "--before", emoji_bundle, "--bundle", f"fp32={emoji_bundle}")
    assert evaluated(run, *options)["title"] == f"{run.name}: sks cat, 2 steps, guidance 4"


def test_a_run_that_has_written_no_model_is_refused_before_anything_is_painted(run: Path, emoji_bundle: Path) -> None:
    (run / "model").unlink()
    with pytest.raises(TrainConfigError, match=r"holds neither model/ nor lora/, expected what a run writes"):
        evaluated(run, "--before", emoji_bundle)


def test_a_run_of_a_lora_is_its_base_with_that_in_it(run: Path) -> None:
    (run / "model").unlink()
    Lora(EMOJI, text=False).as_diffusers(run / "lora")
    base = load_checkpoint(EMOJI)
    tuned = _tuned(run, load_config(run / CONFIG))
    assert (tuned.base_digest, len(tuned.merged)) == (base.digest, 1)
    assert tuned.digest != base.digest
