"""Files and folders that are whole or not there: written beside their place, put there by renames."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Give a fresh folder to fill; it takes the place of ``output`` when the block ends, and goes where it fails."""
    folder, old = _beside(output), output.with_name(f".{output.name}.old-{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
        if output.exists():
            output.rename(old)
        folder.rename(output)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def whole_file(output: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of ``output`` as a ``whole_folder`` does."""
    file = _beside(output)
    try:
        yield file
        os.replace(file, output)
    finally:
        file.unlink(missing_ok=True)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove what killed runs left: what is named by ``prefix`` and the id of no other running process."""
    for path in parent.glob(f"{prefix}*"):
        process = path.name.removeprefix(prefix)
        if process.isdecimal() and (int(process) == os.getpid() or not _is_alive(int(process))):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _beside(output: Path) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.unfinished-"
    remove_leftovers(output.parent, prefix)
    return output.with_name(f"{prefix}{os.getpid()}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
