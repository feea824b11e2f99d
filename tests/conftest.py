"""Fixtures that several packages need: real bundles, compiled once and kept in ``build/`` for the next run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.model import Model

ROOT = Path(__file__).parent.parent
EMOJI = ROOT / "models" / "emoji"
BUILD = ROOT / "build" / "tests"
CACHE = BUILD / "cache"
os.environ.setdefault("MEZZOTINT_SERVE_METRICS_PORT", "0")  # servers of tests run beside each other
CALIBRATION_PROMPTS = ("a cat", "a dog by the sea")  # few, since torch paints them for every checkpoint


def compile_by_hand(source: Path, output: Path, *options: str) -> Path:
    """Compile as a user does, in a process of its own; finished stages are reused from earlier runs."""
    command = [sys.executable, "-m", "mezzotint", "compile", str(source), "--output", str(output)]
    done = subprocess.run(
        [*command, "--cache", str(CACHE), *options], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return output


@pytest.fixture(scope="session")
def emoji_bundle() -> Path:
    """The demo model for OpenVINO at fp32."""
    return compile_by_hand(EMOJI, BUILD / "emoji", "--precision", "fp32")


@pytest.fixture(scope="session")
def emoji(emoji_bundle: Path) -> Model:
    """The demo model's bundle, opened."""
    return open_bundle(emoji_bundle, LoadOptions(devices={}, cache=False))


@pytest.fixture(scope="session")
def fast_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with a shallow UNet beside the full one, a decoder in three parts, and a tiny one untrained."""
    from tests.miniatures import write_tiny_decoder

    tiny = write_tiny_decoder(tmp_path_factory.mktemp("decoders") / "tiny", num_levels=3)
    parts = ("--step-cache", "--decoder-parts", "3", "--tiny-decoder", str(tiny))
    return compile_by_hand(EMOJI, BUILD / "emoji-fast", "--precision", "fp32", *parts)


@pytest.fixture(scope="session")
def fast(fast_bundle: Path) -> Model:
    """The bundle with all variants of engines, opened."""
    return open_bundle(fast_bundle, LoadOptions(devices={}, cache=False))


@pytest.fixture(scope="session")
def sd15_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Stable Diffusion 1.5 with random weights, the same ones each time."""
    from tests.miniatures import write_sd15_miniature

    return write_sd15_miniature(tmp_path_factory.mktemp("checkpoints") / "sd15-miniature")


@pytest.fixture(scope="session")
def sd21_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Stable Diffusion 2.1 with random weights, the same ones each time."""
    from tests.miniatures import write_sd21_miniature

    return write_sd21_miniature(tmp_path_factory.mktemp("checkpoints") / "sd21-miniature")
