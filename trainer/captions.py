"""What is said of each picture: the prompt, its file's name, or a text file beside it. Knows nothing of models."""

import re
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.pictures import shown

# "a sks cat (2)", "a sks cat-02" and "a_sks_cat_2" are pictures of one caption.
_COUNTER = re.compile(r"[\s_-]*(\(\d+\)|(?<![^\W_])\d+)$")
_SPACES = re.compile(r"[\s_]+")
_MAX_BYTES = 16_384


class Captions(StrEnum):
    """Where captions come from."""

    PROMPT = "prompt"
    FILENAME = "filename"
    TXT = "txt"


def captions_of(pictures: Sequence[Path], source: Captions, prompt: str) -> list[str]:
    """Return the caption of each picture.

    ``prompt`` is every picture's with ``Captions.PROMPT``; the other two do not need it.

    Raises:
        TrainError: a picture has no caption; all such are named together.
    """
    if source is Captions.PROMPT:
        return [prompt] * len(pictures)
    found = [from_name(path) if source is Captions.FILENAME else _from_text(path) for path in pictures]
    missing = [shown(path) for path, caption in zip(pictures, found, strict=True) if not caption]
    if missing:
        expected = (
            "words in its name, such as `a photo of a sks cat (1).png`"
            if source is Captions.FILENAME
            else "a text file of the same name beside it, ending in .txt, with one line"
        )
        raise TrainError(
            f"{', '.join(missing)}: no caption, expected {expected}; or use captions=prompt, one for all pictures"
        )
    return found


def class_captions_of(pictures: Sequence[Path], source: Captions, prompt: str) -> list[str]:
    """Return the caption of each class picture: its text file's with ``Captions.TXT`` where it has one, or ``prompt``.

    Raises:
        TrainError: a text file cannot be read.
    """
    if source is not Captions.TXT:
        return [prompt] * len(pictures)
    return [_from_text(path) or prompt for path in pictures]


def from_name(path: Path) -> str:
    """Return a file's name as a caption: without its ending and counter, underscores as spaces; "" if not UTF-8."""
    if any("\ud800" <= letter <= "\udfff" for letter in path.stem):  # as Python keeps a name's other bytes
        return ""
    return _SPACES.sub(" ", _COUNTER.sub("", path.stem)).strip()


def _from_text(path: Path) -> str:
    """Return what the text file beside a picture says, in one line; "" where there is none."""
    file = path.with_suffix(".txt")
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise TrainError(f"{shown(file)}: cannot be read ({error.strerror})") from error
    if len(text) > _MAX_BYTES:
        raise TrainError(f"{shown(file)}: is longer than {_MAX_BYTES} bytes, expected a caption of one line")
    try:
        return " ".join(text.decode("utf-8-sig").split())
    except UnicodeDecodeError:
        raise TrainError(f"{shown(file)}: is not UTF-8 text; save it as such") from None
