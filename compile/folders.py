"""The folder that a bundle is written into: checked first, filled beside its place, put there in one rename."""

import os
import shutil
from pathlib import Path

from mezzotint.compile.stages import remove_leftovers
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import MANIFEST


def check_output(output: Path) -> None:
    """Refuse to write where something else is. Raises CompileError."""
    if output.is_dir() and any(output.iterdir()) and not (output / MANIFEST).is_file():
        raise CompileError(f"{output}: holds something that is no bundle; name an empty or a new folder")
    if output.exists() and not output.is_dir():
        raise CompileError(f"{output}: is a file; name a folder")


def unfinished_folder(output: Path) -> Path:
    """Return a fresh folder beside ``output``; those that killed runs left are removed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.unfinished-"
    remove_leftovers(output.parent, prefix)
    folder = output.with_name(f"{prefix}{os.getpid()}")
    folder.mkdir()
    return folder


def publish(unfinished: Path, output: Path) -> None:
    """Put a whole bundle in place of what was there, in renames alone."""
    old = output.with_name(f".{output.name}.old-{os.getpid()}")
    if output.exists():
        output.rename(old)
    unfinished.rename(output)
    shutil.rmtree(old, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Link a file to its place in a bundle, or copy it where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
