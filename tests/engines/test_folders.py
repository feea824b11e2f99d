"""Files and folders that are whole or not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint.engines.folders import whole_file, whole_folder, writer

HOST = writer().rpartition("-")[0]


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_run_left_goes_and_what_another_is_writing_stays(tmp_path: Path, dead: int) -> None:
    stays, goes = (f"{HOST}-{os.getppid()}", f"an-other-{dead}"), (f"{HOST}-{dead}", f"old-{os.getppid()}")
    for name in (*stays, *goes, writer()):
        (tmp_path / f".b.unfinished-{name}").mkdir()
        (tmp_path / f".b.unfinished-{name}" / "half").touch()
    os.utime(tmp_path / f".b.unfinished-{goes[1]}", (0, 0))  # of another host, and a week old
    (tmp_path / f".c.unfinished-{HOST}-{dead}").touch()
    with whole_folder(tmp_path / "b") as folder, whole_file(tmp_path / "c") as file:
        file.touch()
        assert folder.name == f".b.unfinished-{writer()}"
        assert not list(folder.iterdir())
        assert all((tmp_path / f".b.unfinished-{name}" / "half").exists() for name in stays)
        assert not any((tmp_path / f".b.unfinished-{name}").exists() for name in goes)
        assert not (tmp_path / f".c.unfinished-{HOST}-{dead}").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_a_folder_takes_the_place_of_the_old_one_at_once_or_not_at_all(tmp_path: Path, fails: bool) -> None:
    output = tmp_path / "deep" / "b"
    with whole_folder(output) as folder:
        (folder / "old").touch()
    assert [path.name for path in output.iterdir()] == ["old"]
    try:
        with whole_folder(output) as folder:
            (folder / "new").touch()
            assert [path.name for path in output.iterdir()] == ["old"]
            if fails:
                raise OSError
    except OSError:
        pass
    assert [path.name for path in output.iterdir()] == ["old" if fails else "new"]
    assert [path.name for path in output.parent.iterdir()] == ["b"]


def test_an_old_folder_that_a_killed_run_left_goes_with_the_next_that_is_whole(tmp_path: Path, dead: int) -> None:
    output = tmp_path / "b"
    for name in ("b", f".b.old-{writer()}", f".b.old-{HOST}-{dead}", f".b.old-{HOST}-{os.getppid()}"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").touch()
    with whole_folder(output) as folder:
        (folder / "new").touch()
        assert (tmp_path / f".b.old-{HOST}-{dead}" / "old").exists()
    assert [path.name for path in output.iterdir()] == ["new"]
    assert {path.name for path in tmp_path.iterdir()} == {"b", f".b.old-{HOST}-{os.getppid()}"}


def test_the_old_folder_comes_back_where_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    output = tmp_path / "b"
    with whole_folder(output) as folder:
        (folder / "old").touch()
    with pytest.raises(FileNotFoundError), whole_folder(output) as folder:
        folder.rmdir()
    assert [path.name for path in output.iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_takes_the_place_of_the_old_one_at_once_or_not_at_all(tmp_path: Path, fails: bool) -> None:
    output = tmp_path / "deep" / "b"
    with whole_file(output) as file:
        file.write_text("old")
    try:
        with whole_file(output) as file:
            file.write_text("new")
            assert output.read_text() == "old"
            if fails:
                raise OSError
    except OSError:
        pass
    assert output.read_text() == ("old" if fails else "new")
    assert [path.name for path in output.parent.iterdir()] == ["b"]
