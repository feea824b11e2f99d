"""Fixtures that several packages need: real bundles, compiled once and kept in ``build/`` for the next run."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.summary import SLOW

ROOT = Path(__file__).parent.parent
EMOJI = ROOT / "models" / "emoji"
BUILD = ROOT / "build" / "tests"
CACHE = BUILD / "cache"
os.environ.setdefault("MEZZOTINT_SERVE_METRICS_PORT", "0")  # servers of tests run beside each other
# One decoder, whatever a busy neighbour makes of its time: a miniature's is near the two steps from which it is cut.
SMALL = ("--precision", "fp32", "--max-rows", "2", "--prompt", "a cat", "--decoder-parts", "1")
"""How miniatures are compiled: what is asked alike is done once."""
CALIBRATION_PROMPTS = ("a cat", "a dog by the sea")  # few, since torch paints them for every checkpoint


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let slow tests say so in the results, for ``tests.summary``; the compiler's, whose bundles others need, begin."""
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "compile"))
    for item in items:
        if item.get_closest_marker("slow"):
            item.user_properties.append((SLOW, True))


def compile_by_hand(source: Path, output: Path, *options: str) -> Path:
    """Compile as a user does, in a process of its own; finished stages are reused from earlier runs.

    Of pytest-xdist's workers the first to come does it for all.
    """
    run, compiled_by = os.environ.get("PYTEST_XDIST_TESTRUNUID"), output.with_suffix(".run")
    output.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(output.with_suffix(".lock")):
        if run and compiled_by.exists() and compiled_by.read_text(encoding="utf-8") == run:
            return output
        command = [sys.executable, "-m", "mezzotint", "compile", str(source), "--output", str(output)]
        done = subprocess.run(
            [*command, "--cache", str(CACHE), *options], capture_output=True, text=True, check=False, cwd=ROOT
        )
        if done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        compiled_by.write_text(run or "", encoding="utf-8")
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
    small = ("--precision", "fp32", "--max-rows", "4", "--prompt", "a cat face")
    return compile_by_hand(EMOJI, BUILD / "emoji-fast", *small, *parts)


@pytest.fixture(scope="session")
def large_bundle() -> Path:
    """The demo model for pictures of up to three times its own sides, with a decoder for tiles."""
    sides = ("--height", "64:64:192", "--width", "64:64:192", "--tile-decoder", "--decoder-parts", "1")
    small = ("--precision", "fp32", "--max-rows", "4", "--prompt", "a cat face")
    return compile_by_hand(EMOJI, BUILD / "emoji-large", *small, *sides)


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
def sd15_bundle(sd15_checkpoint: Path) -> Path:
    """It for OpenVINO at fp32."""
    return compile_by_hand(sd15_checkpoint, BUILD / "sd15", *SMALL)


@dataclass(frozen=True)
class Checked:
    """A checkpoint with a safety checker, diffusers' own module of it, and pictures: it flags the first two alone.

    The first four are what the plain checkpoint paints with ``request`` and the seeds 1 to 4.
    """

    folder: Path
    module: Any
    pictures: list[np.ndarray]
    request: dict[str, Any]


@pytest.fixture(scope="session")
def checked(sd15_checkpoint: Path, sd15_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Checked:
    """A miniature of Stable Diffusion 1.5 with a safety checker that knows its pictures."""
    from tests.miniatures import add_safety_checker

    request: dict[str, Any] = {"prompt": "a cat", "steps": 2, "guidance": 2.0}
    model = open_bundle(sd15_bundle, LoadOptions(devices={}, cache=False))
    painted = [generate(model, [Request(**request, seed=seed)])[0][0].pixels for seed in range(1, 5)]
    model.close()
    rng = np.random.default_rng(0)
    made = [Image.fromarray(rng.integers(0, 256, (2 + i, 5 - i, 3), dtype=np.uint8)) for i in range(3)]
    others = [np.asarray(picture.resize((64, 96), Image.Resampling.BICUBIC)) for picture in made]
    pictures = [*(pixels for pixels in painted if pixels is not None), *others]
    folder = tmp_path_factory.mktemp("checkpoints") / "sd15-checked"
    shutil.copytree(sd15_checkpoint, folder)
    return Checked(folder, add_safety_checker(folder, pictures), pictures, request)


@pytest.fixture(scope="session")
def checked_bundle(checked: Checked) -> Path:
    """It for OpenVINO at fp32, with its safety checker."""
    return compile_by_hand(checked.folder, BUILD / "sd15-checked", *SMALL, "--with-safety-checker")


@pytest.fixture(scope="session")
def distilled_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of a latent consistency model, whose UNet takes guidance as an input, with random weights."""
    from tests.miniatures import write_distilled_miniature

    return write_distilled_miniature(tmp_path_factory.mktemp("checkpoints") / "distilled-miniature")


@pytest.fixture(scope="session")
def distilled_bundle(distilled_checkpoint: Path) -> Path:
    """It for OpenVINO at fp32, with a shallow UNet."""
    return compile_by_hand(distilled_checkpoint, BUILD / "distilled", *SMALL, "--step-cache")


@pytest.fixture(scope="session")
def inpainting_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Stable Diffusion 1.5 that was made to inpaint, with random weights."""
    from tests.miniatures import write_inpainting_miniature

    return write_inpainting_miniature(tmp_path_factory.mktemp("checkpoints") / "inpainting-miniature")


@pytest.fixture(scope="session")
def inpainting_bundle(inpainting_checkpoint: Path) -> Path:
    """It for OpenVINO at fp32."""
    return compile_by_hand(inpainting_checkpoint, BUILD / "inpainting", *SMALL)


@pytest.fixture(scope="session")
def sd21_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A miniature of Stable Diffusion 2.1 with random weights, the same ones each time."""
    from tests.miniatures import write_sd21_miniature

    return write_sd21_miniature(tmp_path_factory.mktemp("checkpoints") / "sd21-miniature")


@pytest.fixture(scope="session")
def sd21_bundle(sd21_checkpoint: Path) -> Path:
    """It for OpenVINO at fp32."""
    return compile_by_hand(sd21_checkpoint, BUILD / "sd21", *SMALL)
