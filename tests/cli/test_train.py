"""``mezzotint train``: its options are the configuration's fields; a run's folder has all that it promises."""

import io
import os
import subprocess
import sys
from pathlib import Path

import diffusers
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from mezzotint import Client
from mezzotint.cli import cli
from mezzotint.cli.compile import command as compile_command
from mezzotint.cli.errors import run
from mezzotint.cli.progress import PaintProgress
from mezzotint.cli.serve import READY
from mezzotint.cli.train import compile_arguments, resolved
from mezzotint.cli.train_options import given, train_options
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.job import LoraFile
from mezzotint.trainer.base import Base
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.config_file import load_config
from mezzotint.trainer.loggers import read_lines
from mezzotint.trainer.single_file import write_single_file
from tests.conftest import BUILD, EMOJI, ROOT
from tests.miniatures import write_sd15_miniature
from tests.trainer.bases import read_base

SMALL = ("--resolution", "64", "--train-batch-size", "2", "--max-train-steps", "2", "--report-to", "none")
PROMPTS = ("--instance-prompt", "a photo of a sks cat", "--class-prompt", "a photo of a cat")


def write_pictures(folder: Path, count: int, seed: int) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(generator.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sd15_miniature(tmp_path_factory.mktemp("bases") / "sd15")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Options with pictures of a subject, and with as many of its class as are wanted, so that none is painted."""
    folder = tmp_path_factory.mktemp("pictures")
    own, others = write_pictures(folder / "cats", 3, 1), write_pictures(folder / "class", 2, 2)
    return ("--instance-data", str(own), "--class-data", str(others), "--num-class-images", "2", *PROMPTS)


@pytest.fixture(scope="module")
def finished(miniature: Path, pictures: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "sks"
    shown = ("--validation-prompt", "a sks cat", "--num-validation-images", "1", "--sample-steps", "2")
    assert run(cli, ["train", str(miniature), *pictures, *SMALL, *shown, "--output", str(folder)]) == 0
    return folder


def losses(folder: Path) -> list[float]:
    return [values["train/loss"] for values in read_lines(folder / "logs").values() if "train/loss" in values]


def test_every_field_of_the_configuration_is_an_option() -> None:
    names = {option.name for option in train_options()}
    assert names == set(TrainConfig.model_fields) - {"concepts", "instance_grounds", "pretrained_model_name_or_path"}
    assert all(option.help for option in train_options())


def test_what_is_not_given_has_no_value() -> None:
    assert given({"seed": 0, "resolution": None, "lora_layers": (), "random_flip": False}) == {
        "seed": 0,
        "random_flip": False,
    }


def test_a_run_leaves_a_model_in_every_form_and_a_page_about_it(finished: Path, miniature: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    pages = {"config.yaml", "index.html", "contact-sheet.png"}
    assert names == pages | {"checkpoints", "logs", "model", "model-fp16", "samples", "sks.safetensors"}
    assert len(losses(finished)) == 2
    before, after = (
        diffusers.UNet2DConditionModel.from_pretrained(path / "unet") for path in (miniature, finished / "model")
    )
    assert not np.array_equal(before.conv_in.weight.detach(), after.conv_in.weight.detach())
    vaes = [
        (path / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() for path in (miniature, finished / "model")
    ]
    assert vaes[0] == vaes[1]


def test_a_run_from_a_saved_configuration_has_the_same_losses(finished: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert run(cli, ["train", "--config", str(finished / "config.yaml"), "--output", str(again)]) == 0
    assert losses(again) == losses(finished)
    assert load_config(again / "config.yaml").model_copy(update={"output_dir": finished}) == load_config(
        finished / "config.yaml"
    )


@pytest.mark.slow
def test_a_run_of_matrices_leaves_their_files(miniature: Path, pictures: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    assert run(cli, ["train", str(miniature), *pictures, *SMALL, "--lora-rank", "2", "-o", str(folder)]) == 0
    assert (folder / "lora" / "pytorch_lora_weights.safetensors").is_file()
    assert not (folder / "model").exists()
    compiled = compile_arguments(load_config(folder / "config.yaml"))
    params = compile_command.make_context("compile", compiled[1:]).params
    assert (params["source"], params["loras"]) == (str(miniature), (LoraFile(folder / "lora"),))


def test_a_models_own_recipe_goes_before_defaults_and_after_what_one_says(miniature: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in miniature.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "dreambooth.yaml").write_text("learning-rate: 0.001\nmax-train-steps: 7\n", encoding="utf-8")
    said = {"instance_data_dir": "cats", "instance_prompt": "a photo of a sks cat", "max_train_steps": 2}
    checkpoint = load_checkpoint(folder)
    config = resolved(checkpoint, said)
    assert (config.learning_rate, config.max_train_steps) == (0.001, 2)
    assert config.resolution == 128  # the miniature's own
    assert resolved(checkpoint, {**said, "resolution": 64}).resolution == 64


def test_unknown_keys_are_refused_in_one_sentence(
    miniature: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("learning-rat: 1\nfoo: 2\n", encoding="utf-8")
    assert run(cli, ["train", str(miniature), "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "learning_rat: is no option (did you mean learning_rate?); foo: is no option" in said


def test_a_run_of_nothing_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["train", "--instance-data", "cats"]) == 2
    assert "Missing argument 'BASE'" in capsys.readouterr().err


def test_class_pictures_are_counted_in_a_log() -> None:
    text = io.StringIO()
    with PaintProgress(Console(file=text)) as progress:
        progress.report(4, 8)
        progress.report(8, 8)
    assert text.getvalue() == "class pictures: 8\n"


@pytest.mark.slow
def test_a_run_goes_on_where_it_ended(miniature: Path, pictures: tuple[str, ...], tmp_path: Path) -> None:
    command = ["train", str(miniature), *pictures, *SMALL, "--learning-rate", "1e-3", "--output"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run(cli, [*command, str(whole), "--max-train-steps", "4"]) == 0
    assert run(cli, [*command, str(parts)]) == 0
    assert run(cli, [*command, str(parts)]) == 4  # a new run is not written over it
    assert run(cli, [*command, str(parts), "--resume-from-checkpoint", "latest", "--max-train-steps", "4"]) == 0
    assert losses(parts) == losses(whole)
    assert len(losses(whole)) == 4


@pytest.mark.slow
def test_bfloat16_learns_about_the_same(
    finished: Path, miniature: Path, pictures: tuple[str, ...], tmp_path: Path
) -> None:
    command = ["train", str(miniature), *pictures, *SMALL, "--mixed-precision", "bf16", "-o", str(tmp_path / "run")]
    assert run(cli, command) == 0
    assert losses(tmp_path / "run") == pytest.approx(losses(finished), rel=0.02)
    assert losses(tmp_path / "run") != losses(finished)


@pytest.mark.slow
def test_a_single_file_is_trained_as_a_folder_is(
    finished: Path, miniature: Path, pictures: tuple[str, ...], tmp_path: Path
) -> None:
    base: Base = read_base(miniature)
    write_single_file(base, tmp_path / "sd15.safetensors")
    folder = tmp_path / "run"
    source = [str(tmp_path / "sd15.safetensors"), "--base-config", str(miniature)]
    assert run(cli, ["train", *source, *pictures, *SMALL, "--output", str(folder)]) == 0
    assert losses(folder) == losses(finished)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(
    finished: Path, miniature: Path, pictures: tuple[str, ...], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "mezzotint", "train", str(miniature), *pictures, *SMALL]
    two = ("--accelerator", "cpu", "--devices", "2", "--strategy", "ddp", "--train-batch-size", "1")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [*command, *two, "--output", str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained 2 steps") == 1
    assert "GPU available" not in done.stderr  # Lightning's own talk
    assert losses(tmp_path / "two") == pytest.approx(losses(finished), rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_trains_compiles_and_serves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mezzotint", "train", str(EMOJI), "--output", str(tmp_path / "sks"), *PROMPTS]
    options = ("--instance-data", str(ROOT / "models" / "subject"), "--num-class-images", "4", "--sample-steps", "4")
    few = (
        "--num-prior-images",
        "1",
        "--max-train-steps",
        "4",
        "--train-batch-size",
        "2",
        "--then-serve",
        "--port",
        "0",
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "MEZZOTINT_SERVE_METRICS_PORT": "0",
        "MEZZOTINT_COMPILE_PRECISION": "fp32",
        "XDG_CACHE_HOME": str(BUILD / "then-serve"),
    }
    log = (tmp_path / "log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [*command, *options, *few], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        line = next((line for line in process.stdout if READY in line), "")
        assert line, (tmp_path / "log").read_text(encoding="utf-8")
        with Client(line.rpartition(READY)[2].strip()) as client:
            assert len(client.generate("a photo of a sks cat", steps=2, seed=1).images) == 1
    finally:
        process.terminate()
        process.communicate(timeout=60)
        log.close()
    assert process.returncode == 0
    assert (tmp_path / "sks" / "bundle" / "manifest.json").is_file()
