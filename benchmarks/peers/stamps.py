"""What was made is kept while what it was made from stays the same: a folder's stamp says what that was."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mezzotint.engines.bundle_files import file_digest

_STAMP = "mezzotint-peers.json"


class NotMade(Exception):
    """Something that rows need could not be made; the message is the reason that they show."""


def fingerprint(folder: Path) -> str:
    """Return a digest of every file's name and content below ``folder``, but for bytecode."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(folder)} {file_digest(path)}\n".encode())
    return digest.hexdigest()


def read_stamp(folder: Path) -> dict[str, Any]:
    """Return what ``folder`` was made from and what came of it, or nothing where it was never finished."""
    try:
        content: dict[str, Any] = json.loads((folder / _STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return content


def made(folder: Path, source: dict[str, Any], make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return what came of making ``folder`` from ``source``, making it first if it is not that.

    What ``make`` returns is kept with the stamp; a folder that it did not finish is made again. Raises what it raises.
    """
    found = read_stamp(folder)
    if found.get("source") == source:
        return found
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stamp = {"source": source, **make(folder)}
    (folder / _STAMP).write_text(json.dumps(stamp, indent=1), encoding="utf-8")
    return stamp
