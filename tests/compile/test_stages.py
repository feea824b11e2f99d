"""Stages that run at the same time, and what killed runs leave."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint.compile.folders import unfinished_folder
from mezzotint.compile.stages import Stages
from tests.conftest import ROOT

OTHER = """
import sys
from pathlib import Path
from mezzotint.compile.stages import Stages
Stages(Path(sys.argv[1]), print).run("derive x", {"a": 1}, lambda folder: (folder / "file").write_text("theirs"))
"""


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_compile_left_goes_and_what_another_is_writing_stays(tmp_path: Path, dead: int) -> None:
    for process in (dead, os.getppid(), os.getpid()):
        (tmp_path / f".b.unfinished-{process}").mkdir()
        (tmp_path / f".b.unfinished-{process}" / "half").touch()
    folder = unfinished_folder(tmp_path / "b")
    assert folder.name == f".b.unfinished-{os.getpid()}"
    assert not list(folder.iterdir())
    assert (tmp_path / f".b.unfinished-{os.getppid()}" / "half").exists()
    assert not (tmp_path / f".b.unfinished-{dead}").exists()


def test_two_compiles_can_run_the_same_stage(tmp_path: Path) -> None:
    def work(folder: Path) -> None:
        (folder / "file").write_text("ours")
        subprocess.run([sys.executable, "-c", OTHER, str(tmp_path)], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        assert (folder / "file").read_text() == "ours"

    result = Stages(tmp_path, lambda _: None).run("derive x", {"a": 1}, work)
    assert (result.folder / "file").read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == [result.folder.name]
