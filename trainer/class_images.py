"""Pictures of the class, which the base model paints itself: what prior preservation holds it to.

Prompt and seeds are fixed and an index beside them says of which model they are, so a second run paints none, a killed
one goes on, and another model's are painted anew. A user's own pictures in the folder count and are never touched,
whatever they are called: painted ones are known by name, and only beside an index.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from mezzotint.engines.bundle import cache_folder
from mezzotint.engines.errors import TrainError
from mezzotint.engines.picture import encode_picture
from mezzotint.trainer.atomic import write_file
from mezzotint.trainer.pictures import find_pictures, list_pictures, shown

INDEX = "class-images.json"
_PAINTED = re.compile(r"class-\d{5}\.png")
_FORMAT = 1
_OWN = "own"  # the index's key for a user's pictures that are called as painted ones are

Painter: TypeAlias = Callable[[Sequence[str], Sequence[int]], list[npt.NDArray[np.uint8]]]
"""Paints a picture, uint8 [height, width, 3], of each prompt with its seed."""

Progress: TypeAlias = Callable[[int, int], None]
"""Hears how many pictures are there, and how many there will be."""


def class_folder(digest: str, prompt: str, settings: Mapping[str, object]) -> Path:
    """Return the folder of a model's class pictures of a prompt, painted so, in the user's cache."""
    key = hashlib.sha256(json.dumps([digest, prompt, dict(settings)], sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "class-images" / key


def class_pictures(folder: Path, count: int) -> list[Path]:
    """Return the first ``count`` class pictures of a folder: the user's own, then those painted.

    Raises:
        TrainError: there are fewer.
    """
    pictures, painted = find_pictures(folder), _painted(folder)
    found = sorted(pictures, key=lambda path: (path in painted, path.name))
    if len(found) < count:
        raise TrainError(f"{shown(folder)}: holds {len(found)} class pictures, expected {count}; paint or add the rest")
    return found[:count]


def fill_class_images(
    folder: Path,
    prompt: str,
    count: int,
    painter: Painter,
    digest: str,
    *,
    settings: Mapping[str, object] | None = None,
    batch_size: int = 4,
    progress: Progress = lambda done, total: None,
) -> int:
    """Paint class pictures until the folder has ``count``; returns how many were painted.

    Args:
        folder: made where it is missing; other processes wait while one fills it.
        prompt: what the class is called, such as ``a photo of a cat``.
        count: how many there are to be, a user's own among them.
        painter: makes them; not called where nothing is missing.
        digest: the model's that paints.
        settings: how it paints, in any words; pictures painted otherwise are painted anew.
        batch_size: pictures asked of the painter at a time; a killed run loses at most so many.
        progress: hears of each picture.

    Raises:
        TrainError: the disk is full or the folder cannot be written; what is there stays, and the next run goes on.
    """
    index = {"format": _FORMAT, "model": digest, "prompt": prompt, "settings": dict(settings or {})}
    try:
        if folder.is_dir() and _num_own(folder) >= count:
            return 0  # and nothing is written: it may be a folder that only others write
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            _claim(folder, index)
            missing = _missing_seeds(folder, count)
            for start in range(0, len(missing), batch_size):
                seeds = missing[start : start + batch_size]
                for seed, pixels in zip(seeds, painter([prompt] * len(seeds), seeds), strict=True):
                    write_file(_place(folder, seed), encode_picture(pixels))
                progress(count - len(missing) + start + len(seeds), count)
    except OSError as error:
        done = len(list_pictures(folder)) if folder.is_dir() else 0
        reason = (error.strerror or str(error)).lower()
        raise TrainError(
            f"{shown(folder)}: class pictures cannot be written ({reason}), {done} are there of {count} asked for; "
            "make room and run again, it goes on from there"
        ) from error
    return len(missing)


def _claim(folder: Path, index: Mapping[str, Any]) -> None:
    """Write the index, and remove pictures that were painted otherwise than it says."""
    known, own = _read_index(folder), _own_names(folder)
    if known is not None and {name: value for name, value in known.items() if name != _OWN} == index:
        return
    for path in _painted(folder):
        path.unlink()
    content = {**index, **({_OWN: own} if own else {})}
    write_file(folder / INDEX, json.dumps(content, indent=1).encode())


def _missing_seeds(folder: Path, count: int) -> list[int]:
    """Return the seeds to paint; the numbers of a user's own pictures are passed over."""
    own = {folder / name for name in _own_names(folder)}
    free = (seed for seed in itertools.count() if _place(folder, seed) not in own)
    return [seed for seed in itertools.islice(free, count - _num_own(folder)) if not _place(folder, seed).exists()]


def _num_own(folder: Path) -> int:
    """Return how many pictures are a user's own."""
    return len(list_pictures(folder)) - len(_painted(folder))


def _painted(folder: Path) -> set[Path]:
    """Return the pictures of a folder that were painted here; none without an index, which is written before them."""
    own = _own_names(folder)
    return {path for path in list_pictures(folder) if _PAINTED.fullmatch(path.name) and path.name not in own}


def _own_names(folder: Path) -> list[str]:
    """Return the names of a user's own pictures that are called as painted ones are."""
    index = _read_index(folder)
    if index is None:
        return [path.name for path in list_pictures(folder) if _PAINTED.fullmatch(path.name)]
    return list(index.get(_OWN, ()))


def _read_index(folder: Path) -> dict[str, Any] | None:
    """Return what the index says; None where there is none, or what is there is none of ours."""
    try:
        known = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and {"format", "model", "prompt"} <= known.keys() else None


def _place(folder: Path, seed: int) -> Path:
    return folder / f"class-{seed:05}.png"
