"""Picture files of a data set: which ones a folder gives, and each as upright RGB; what cannot be used is refused.

Imports Pillow; knows nothing of models.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mezzotint.engines.errors import TrainError
from mezzotint.engines.initial_picture import reason_of, upright_rgb

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_ENLARGEMENT = 8
"""A picture that would be enlarged more than so many times has nothing to teach."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_BESIDE = (".txt", ".caption", ".json", ".yaml", ".md", ".lock", ".part")  # what people keep beside pictures
_MAX_LISTED = 5

Size = tuple[int, int]
"""(width, height) in pixels, as Pillow has it."""


def find_pictures(folder: Path) -> list[Path]:
    """Return the PNG, JPEG and WebP files of a folder, by name; hidden ones and those of sub-folders are none of it.

    Raises:
        TrainError: it is no folder, cannot be listed, or has no picture.
    """
    if not folder.is_dir():
        raise TrainError(f"{shown(folder)}: no such folder; give one with pictures (PNG, JPEG or WebP)")
    found = list_pictures(folder)
    if not found:
        raise TrainError(
            f"{shown(folder)}: holds no picture, expected PNG, JPEG or WebP files; put three to thirty of the subject "
            "there, not in sub-folders"
        )
    return found


def list_pictures(folder: Path) -> list[Path]:
    """Return what ``find_pictures`` does, of a folder that may have none."""
    return sorted(path for path in _visible(folder) if path.suffix.lower() in _SUFFIXES)


def left_out(folder: Path) -> list[str]:
    """Return the names of files that look as if they were meant to be pictures, but are of no kind that is read."""
    return sorted(path.name for path in _visible(folder) if path.suffix.lower() not in (*_SUFFIXES, *_BESIDE))


def read_picture(path: Path) -> Image.Image:
    """Read a picture as RGB, turned as its EXIF says; what is transparent lies on white, 16 bits a channel become 8.

    Raises:
        TrainError: the file is broken, none of the three formats, animated, or of more pixels than a photo has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of corrupt EXIF, which leaves a picture as it lies
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as file:
                if getattr(file, "is_animated", False):
                    raise TrainError(f"{shown(path)}: is animated, expected one picture; save the frame that you want")
                file.load()
                return upright_rgb(file)
    except TrainError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise TrainError(f"{shown(path)}: has more than {limit} million pixels; make it smaller") from None
    except Exception as error:  # Pillow lets through whatever its parsers raise
        raise TrainError(f"{shown(path)}: cannot be read as PNG, JPEG or WebP ({reason_of(error)})") from error


def check_pictures(paths: Sequence[Path], resolution: int) -> list[Size]:
    """Read every picture once; returns their upright sizes. All that cannot be used are named together.

    Raises:
        TrainError: one cannot be read, or its shorter side would have to grow ``MAX_ENLARGEMENT`` times and more to
            ``resolution`` pixels.
    """
    sizes, problems = [], []
    least = -(-resolution // MAX_ENLARGEMENT)
    for path in paths:
        try:
            size = read_picture(path).size
        except TrainError as error:
            problems.append(str(error))
            continue
        if min(size) < least:
            problems.append(f"{shown(path)}: is {size[0]}x{size[1]} pixels, expected at least {least} on either side")
        sizes.append(size)
    if problems:
        more = f"; and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
        raise TrainError(
            f"{len(problems)} of {len(paths)} pictures cannot be used, mend or remove them: "
            f"{'; '.join(problems[:_MAX_LISTED])}{more}"
        )
    return sizes


def shown(path: Path) -> str:
    """Return a path for a message of one line, whatever characters its name has."""
    return str(path) if str(path).isprintable() else repr(str(path))


def _visible(folder: Path) -> list[Path]:
    """Return files, and links to what is gone, which are to be missed; no pipes, on which reading would wait."""
    try:
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise TrainError(f"{shown(folder)}: cannot be listed ({reason_of(error)}); check its permissions") from error
    return [path for path in paths if path.is_file() or (path.is_symlink() and not path.exists())]
