"""The folder that a bundle is written into, checked first; and links, which fill it and those of stages."""

import os
import shutil
from pathlib import Path

from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import MANIFEST


def check_output(output: Path) -> None:
    """Refuse to write where something else is, or where nothing can be put in one move. Raises CompileError."""
    if output.name in ("", ".."):
        raise CompileError(f"{output}: is no name for a bundle; name a folder, such as build/emoji")
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise CompileError(f"{output}: holds something that is no bundle; name an empty or a new folder")
    if output.exists() and not output.is_dir():
        raise CompileError(f"{output}: is a file; name a folder")


def link(source: Path, target: Path) -> None:
    """Link a file to a second place, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
