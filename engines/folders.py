"""Files and folders that are whole or not there: written beside their place, put there by renames."""

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STALE_SECONDS = 7 * 24 * 3600.0


@contextmanager
def whole_folder(output: Path) -> Iterator[Path]:
    """Give a fresh folder to fill; it takes the place of ``output`` when the block ends, and goes where it fails."""
    folder = _beside(output)
    folder.mkdir()
    try:
        yield folder
        _take_place(folder, output)
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
    """Remove what killed runs left: what is named by ``prefix`` and a ``writer`` that is gone.

    Of another host nobody can tell, with which a folder may be shared: what is its goes after a week.
    """
    for path in parent.glob(f"{prefix}*"):
        if not _is_left(path, path.name.removeprefix(prefix)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def writer() -> str:
    """Return this process's name: its host's, which may be a container's, and its id there."""
    return f"{socket.gethostname().replace('/', '_')}-{os.getpid()}"


def _beside(output: Path) -> Path:
    output.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{output.name}.unfinished-"
    remove_leftovers(output.parent, prefix)
    return output.with_name(f"{prefix}{writer()}")


def _take_place(folder: Path, output: Path) -> None:
    """Move a folder to where another may be, which goes once the new one is there and comes back where that fails.

    What a run left that was killed in between stays until then: it is the only copy of what was there.
    """
    prefix = f".{output.name}.old-"
    old = output.with_name(f"{prefix}{writer()}")
    if output.exists():
        shutil.rmtree(old, ignore_errors=True)
        output.rename(old)
    try:
        folder.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    remove_leftovers(output.parent, prefix)


def _is_left(path: Path, by: str) -> bool:
    host, _, process = by.rpartition("-")
    if not process.isdecimal():
        return False
    if host == writer().rpartition("-")[0]:
        return int(process) == os.getpid() or not _is_alive(int(process))
    try:
        return path.stat().st_mtime < path.parent.stat().st_mtime - _STALE_SECONDS  # no clock of ours, but the disk's
    except FileNotFoundError:
        return False


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True
