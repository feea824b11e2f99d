import logging
import os
from pathlib import Path

import pytest

from mezzotint.engines.errors import CredentialsError
from mezzotint.server.reloaded import Reloaded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "number"
    path.write_text("1", encoding="utf-8")
    return path


def numbers(path: Path) -> Reloaded[int]:
    def read() -> int:
        try:
            return int(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise CredentialsError(f"{path}: is no number; write one") from None

    return Reloaded((path,), read)


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def test_what_has_not_changed_is_not_read_again(path: Path) -> None:
    reads: list[None] = []
    value = Reloaded((path,), lambda: reads.append(None))
    for _ in range(5):
        value.get()
    assert len(reads) == 1
    os.utime(path, ns=(1, 1))
    value.get()
    assert len(reads) == 2


def test_a_new_file_is_read_and_a_broken_or_missing_one_keeps_the_old_value_and_is_logged_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    value = numbers(path)
    replace(path, "22")
    assert value.get() == 22
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", f"read again, since it has changed: {path}")
    ]
    caplog.clear()
    for change in (lambda: replace(path, "many"), path.unlink):
        change()
        assert [value.get() for _ in range(3)] == [22] * 3
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", f"{path}: is no number; write one; until then the server goes on with what it read before")
    ] * 2
    replace(path, "3")
    assert value.get() == 3


def test_a_file_that_is_broken_from_the_start_is_an_error(path: Path) -> None:
    path.write_text("one", encoding="utf-8")
    with pytest.raises(CredentialsError, match="is no number; write one"):
        numbers(path)
