"""Files that are whole or not there: written beside their place, flushed to the disk, renamed."""

import os
from pathlib import Path


def write_file(path: Path, content: bytes) -> None:
    """Write a file at once; what a killed process leaves is ``path`` as it was, and a ``.part`` file.

    Raises:
        OSError: the disk is full, or the place cannot be written; no ``.part`` file is left.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
