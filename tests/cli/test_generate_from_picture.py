"""``mezzotint generate --image``, against a real server."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.engines.picture import parse_parameters, read_parameters
from tests.cli.test_generate import generate


def test_a_picture_begins_with_a_file_and_keeps_what_a_mask_keeps(server: str, tmp_path: Path) -> None:
    first, mask, second = tmp_path / "a.webp", tmp_path / "mask.png", tmp_path / "b.png"
    assert generate(server, "--seed", "7", "-o", str(first)) == 0
    white = np.zeros((64, 64), np.uint8)
    white[:, 32:] = 255
    Image.fromarray(white).save(mask)
    start = ["--image", str(first), "--mask", str(mask), "--strength", "0.5", "--mask-blur", "2"]
    assert generate(server, "--seed", "8", *start, "-o", str(second)) == 0
    before, after = (np.asarray(Image.open(path).convert("RGB")) for path in (first, second))
    assert np.array_equal(after[:, :24], before[:, :24])
    assert not np.array_equal(after[:, 40:], before[:, 40:])
    parameters = parse_parameters(read_parameters(second.read_bytes()))
    assert (parameters["Denoising strength"], parameters["Mask blur"]) == ("0.5", "2")


def test_a_file_that_is_not_there_is_one_sentence(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(server, "--image", str(tmp_path / "no.png"), "-o", str(tmp_path / "a.png")) == 2
    assert "image: " in capsys.readouterr().err.splitlines()[-1]
    assert generate(server, "--strength", "0.3", "-o", str(tmp_path / "a.png")) == 2
    assert "strength: says what becomes of an initial picture, and there is none" in capsys.readouterr().err
