"""A checkpoint's folder that a test may change."""

import json
import shutil
from pathlib import Path

from tests.conftest import EMOJI


def copy_emoji(path: Path) -> Path:
    """Copy the emoji model, without its pictures, to a folder below ``path`` and return that."""
    return shutil.copytree(EMOJI, path / "emoji", ignore=shutil.ignore_patterns("*.png"))


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), encoding="utf-8")
