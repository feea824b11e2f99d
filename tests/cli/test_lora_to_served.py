"""A LoRA from its training to the server's picture, as a user goes: train, compile, serve."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mezzotint import Client
from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.verify import psnr_db
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.manifest import read_manifest
from tests.cli.conftest import started
from tests.conftest import BUILD, EMOJI, ROOT, SMALL, compile_by_hand

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

WEIGHT = 0.6
PROMPT = "a shark on a blue background"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LoRA of UNet and text encoder after a few steps that are large enough to be seen."""
    folder = tmp_path_factory.mktemp("runs") / "sks"
    options = {
        "--instance-data": ROOT / "models" / "subject",
        "--instance-prompt": "a photo of a sks cat",
        "--lora-rank": 4,
        "--lora-alpha": 8,
        "--max-train-steps": 6,
        "--train-batch-size": 1,
        "--learning-rate": 0.01,
        "--report-to": "none",
        "--accelerator": "cpu",
        "--output": folder,
    }
    command = [sys.executable, "-m", "mezzotint", "train", str(EMOJI), "--train-text-encoder"]
    command += [str(word) for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "lora"


@pytest.mark.parametrize("name", ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_kohya.safetensors"])
def test_the_served_picture_is_diffusers_with_that_lora_and_the_base_stays_as_it_was(
    name: str, trained: Path, emoji_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: file_digest(path) for path in emoji_bundle.iterdir()}
    file = trained / name
    bundle = compile_by_hand(EMOJI, BUILD / "emoji-lora", *SMALL, "--lora", f"{file}:{WEIGHT}", "--name", "sks")
    assert {path.name: file_digest(path) for path in emoji_bundle.iterdir()} == before
    source, base = read_manifest(bundle).source, read_manifest(emoji_bundle).source
    assert source.base_digest == base.digest != source.digest
    assert [(entry.name, entry.digest, entry.weight) for entry in source.merged] == [(name, file_digest(file), WEIGHT)]
    assert run(cli, ["inspect", str(bundle)]) == 0
    assert f"merged    {WEIGHT} × {name}" in capsys.readouterr().out
    assert f"{WEIGHT} × {name}" in (bundle / "compile_report.md").read_text("utf-8")

    pipeline = load_checkpoint(EMOJI).pipeline()
    pipeline.set_progress_bar_config(disable=True)
    plain = painted(pipeline)
    pipeline.load_lora_weights(file.parent, weight_name=name, adapter_name="sks")
    pipeline.set_adapters(["sks"], [WEIGHT])
    theirs = painted(pipeline)
    with started(bundle) as (_, address), Client(address) as client:
        made = client.generate(PROMPT, steps=10, guidance=4.0, seed=7, sampler="ddim", model="sks")
        ours = np.asarray(made.images[0].convert("RGB"))
    assert psnr_db(theirs, ours) >= 45
    assert psnr_db(plain, ours) < 35


def painted(pipeline: Any) -> np.ndarray[Any, Any]:
    generator = torch.Generator("cpu").manual_seed(7)
    images = pipeline(PROMPT, num_inference_steps=10, guidance_scale=4.0, generator=generator, output_type="np").images
    return (images[0] * 255).round().astype(np.uint8)
