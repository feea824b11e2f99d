"""Class pictures by compiled engines: the base's own, made when the first is asked for, torch where there are none."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mezzotint.cli.painter import EnginePainter, class_painter
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.engines.backends import get_backend
from mezzotint.engines.errors import BundleError
from mezzotint.engines.generate import generate
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.trainer.config import TrainConfig
from tests.conftest import EMOJI
from tests.trainer.bases import read_base

PROMPT = "a photo of a cat"


def grey(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
    return [np.full((8, 8, 3), seed, np.uint8) for seed in seeds]


def test_it_paints_what_the_bundle_gives_for_that_seed(emoji_bundle: Path, emoji: Model) -> None:
    with EnginePainter(lambda: emoji_bundle, steps=3, guidance=4.0) as paint:
        made = paint([PROMPT, PROMPT, "a dog"], [0, 1, 1])
    requests = [Request(prompt=p, seed=s, steps=3, guidance=4.0) for p, s in ((PROMPT, 0), (PROMPT, 1), ("a dog", 1))]
    expected = [images[0].pixels for images in generate(emoji, requests)]
    assert [picture.shape for picture in made] == [(64, 64, 3)] * 3
    for picture, truth in zip(made, expected, strict=True):
        np.testing.assert_array_equal(picture, truth)


def test_the_bundle_is_made_at_the_first_picture_and_once(emoji_bundle: Path) -> None:
    asked = []

    def bundle() -> Path:
        asked.append(1)
        return emoji_bundle

    with EnginePainter(bundle, steps=1, guidance=1.0) as paint:
        assert not asked
        paint([PROMPT], [0])
        paint([PROMPT], [1])
    assert len(asked) == 1


def test_where_there_is_no_bundle_torch_paints_and_it_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    with EnginePainter(lambda: tmp_path, steps=1, guidance=1.0, fallback=grey, tell=said.append) as paint:
        assert paint([PROMPT], [7])[0][0, 0, 0] == 7
        paint([PROMPT], [8])
    assert len(said) == 1
    assert "class pictures are painted by torch" in said[0]
    assert "no bundle there" in said[0]
    with (
        EnginePainter(lambda: tmp_path, steps=1, guidance=1.0) as paint,
        pytest.raises(BundleError, match="no bundle there"),
    ):
        paint([PROMPT], [7])


def test_a_run_s_class_pictures_come_from_its_base_s_bundle_in_the_cache(
    emoji_bundle: Path, emoji: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    base = read_base(EMOJI)
    place = f"{base.digest[:16]}-openvino-{get_backend('openvino').version()}"
    (tmp_path / "mezzotint" / "bases").mkdir(parents=True)
    (tmp_path / "mezzotint" / "bases" / place).symlink_to(emoji_bundle)
    config = TrainConfig(
        instance_data_dir=tmp_path, instance_prompt="a sks cat", class_prompt=PROMPT, sample_steps=2, sample_guidance=3
    )
    said: list[str] = []
    with class_painter(base, config, said.append) as paint:
        (made,) = paint([PROMPT], [5])
    (expected,) = generate(emoji, [Request(prompt=PROMPT, seed=5, steps=2, guidance=3.0)])[0]
    np.testing.assert_array_equal(made, expected.pixels)
    assert not said


BASE_BUNDLE = """
import sys
from mezzotint.cli.painter import base_bundle
from mezzotint.compile.checkpoint import load_checkpoint

events = []
print(base_bundle(sys.argv[1], load_checkpoint(sys.argv[1]).digest, events.append))
print(len(events))
"""


@pytest.mark.slow
def test_the_base_s_bundle_is_compiled_once(sd15_checkpoint: Path, tmp_path: Path) -> None:
    def run() -> list[str]:
        command = [sys.executable, "-c", BASE_BUNDLE, str(sd15_checkpoint)]
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.split()

    folder, num_events = run()
    assert int(num_events) > 0
    assert read_manifest(Path(folder)).source.digest == load_checkpoint(sd15_checkpoint).digest
    assert run() == [folder, "0"]
