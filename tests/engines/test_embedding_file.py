"""Folders of textual-inversion files; what the files hold is in ``test_added_words.py``."""

from pathlib import Path
from typing import NoReturn

import pytest

from mezzotint.engines.embedding_file import EmbeddingPath, embedding_files
from mezzotint.engines.errors import EmbeddingError


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: Path) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(EmbeddingError, match=r"cannot be read \(Permission denied\); check the path"):
        list(embedding_files(EmbeddingPath(tmp_path)))
