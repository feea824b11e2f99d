"""Class pictures: filled up, gone on with after a kill, reused, and painted anew for another model."""

import itertools
import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.class_images import INDEX, class_folder, class_pictures, fill_class_images
from mezzotint.trainer.pictures import read_picture

PROMPT, DIGEST = "a photo of a cat", "0" * 64


class Flat:
    """A painter of one grey by seed, which keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        self.asked += zip(prompts, seeds, strict=True)
        return [np.full((8, 8, 3), seed, np.uint8) for seed in seeds]


def fill(folder: Path, count: int, painter: Flat, digest: str = DIGEST, **given: Any) -> int:
    return fill_class_images(folder, PROMPT, count, painter, digest, **given)


def test_pictures_are_painted_with_fixed_seeds_and_a_second_run_paints_none(tmp_path: Path) -> None:
    painter, heard = Flat(), list[tuple[int, int]]()
    assert fill(tmp_path, 5, painter, batch_size=2, progress=lambda done, total: heard.append((done, total))) == 5
    assert painter.asked == [(PROMPT, seed) for seed in range(5)]
    assert heard == [(2, 5), (4, 5), (5, 5)]
    assert [read_picture(path).getpixel((0, 0)) for path in class_pictures(tmp_path, 5)] == [(i,) * 3 for i in range(5)]
    again = Flat()
    assert fill(tmp_path, 5, again) == 0
    assert not again.asked


def test_more_are_added_to_those_there_are(tmp_path: Path) -> None:
    fill(tmp_path, 3, Flat())
    painter = Flat()
    assert fill(tmp_path, 5, painter) == 2
    assert [seed for _, seed in painter.asked] == [3, 4]


@pytest.mark.parametrize("other", [{"digest": "1" * 64}, {"settings": {"steps": 25}}])
def test_another_model_or_way_of_painting_paints_them_anew(tmp_path: Path, other: dict[str, Any]) -> None:
    fill(tmp_path, 3, Flat())
    painter = Flat()
    assert fill(tmp_path, 2, painter, **other) == 2
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_a_user_s_own_pictures_count_come_first_and_stay(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(tmp_path / "own.png")
    assert fill(tmp_path, 3, Flat()) == 2
    assert [path.name for path in class_pictures(tmp_path, 3)] == ["own.png", "class-00000.png", "class-00001.png"]
    assert fill(tmp_path, 3, Flat(), digest="1" * 64) == 2
    assert (tmp_path / "own.png").exists()


@pytest.mark.parametrize("index", [None, "{", "[]", '{"cats": 2}'])
def test_a_user_s_own_pictures_stay_though_they_are_called_as_painted_ones_are(
    tmp_path: Path, index: str | None
) -> None:
    for number in (0, 2):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"class-{number:05}.png")
    if index is not None:
        (tmp_path / INDEX).write_text(index, encoding="utf-8")
    painter = Flat()
    assert fill(tmp_path, 4, painter) == 2
    assert [seed for _, seed in painter.asked] == [1, 3]
    assert fill(tmp_path, 4, Flat()) == 0
    assert fill(tmp_path, 5, Flat(), digest="1" * 64) == 3  # of another model: painted ones alone are painted anew
    numbers = [int(path.stem.removeprefix("class-")) for path in class_pictures(tmp_path, 5)]
    assert numbers == [0, 2, 1, 3, 4]
    own = [read_picture(tmp_path / f"class-{number:05}.png").getpixel((0, 0)) for number in (0, 2)]
    assert own == [(255, 0, 0)] * 2


def test_where_a_user_s_own_suffice_nothing_is_written(tmp_path: Path) -> None:
    for i in range(3):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"{i}.png")
    before = sorted(tmp_path.iterdir())
    assert fill(tmp_path, 2, Flat()) == 0
    assert sorted(tmp_path.iterdir()) == before


def test_too_few_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, 2, Flat())
    with pytest.raises(TrainError, match="holds 2 class pictures, expected 3"):
        class_pictures(tmp_path, 3)


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from mezzotint.trainer.class_images import fill_class_images

def paint(prompts, seeds):
    if seeds[0] >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return [np.full((8, 8, 3), seed, np.uint8) for seed in seeds]

fill_class_images(Path(sys.argv[1]), "a photo of a cat", 8, paint, "0" * 64, batch_size=2)
"""


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    painter = Flat()
    assert fill(tmp_path, 8, painter) == 4
    assert [seed for _, seed in painter.asked] == [4, 5, 6, 7]
    assert len(class_pictures(tmp_path, 8)) == 8


def test_a_full_disk_is_said_and_what_was_painted_stays(tmp_path: Path) -> None:
    fill(tmp_path, 2, Flat())
    # The kernel's own full device stands where the third picture is written before it is renamed.
    (tmp_path / ".class-00002.png.part").symlink_to("/dev/full")
    with pytest.raises(TrainError, match="class pictures cannot be written \\(no space left on device\\), 2 are there"):
        fill(tmp_path, 4, Flat(), batch_size=1)
    assert fill(tmp_path, 4, Flat()) == 2


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainError, match="class pictures cannot be written"):
        fill(tmp_path / "file" / "class", 1, Flat())


def test_the_index_says_of_which_model_and_prompt_they_are(tmp_path: Path) -> None:
    fill(tmp_path, 1, Flat(), settings={"steps": 25, "guidance": 4.0})
    index = json.loads((tmp_path / INDEX).read_text(encoding="utf-8"))
    assert index == {"format": 1, "model": DIGEST, "prompt": PROMPT, "settings": {"steps": 25, "guidance": 4.0}}


def test_each_model_and_prompt_and_way_to_paint_has_a_folder_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    ways = itertools.product(("0" * 64, "1" * 64), ("a cat", "a dog"), ({"guidance": 2.0}, {"guidance": 5.0}))
    folders = {class_folder(*way) for way in ways}
    assert len(folders) == 8
    assert all(folder.parent == Path("/cache/mezzotint/class-images") for folder in folders)
