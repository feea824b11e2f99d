"""Things on plain grounds: cut out, and laid on others. Imports Pillow and numpy."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
"""Levels of red, green and blue."""

_PLAIN = 24  # how far a channel's level may be from the corner's and still be ground
_JOINED = 2  # what marks a place of the ground's colour that is joined to the corner; others are 1


def cut_out(picture: Image.Image) -> Image.Image:
    """Return a picture of a thing on a plain ground with the ground clear (RGBA): what joins its upper left corner."""
    marked = Image.fromarray(_is_plain(picture).astype(np.uint8)).copy()  # one that may be written to
    ImageDraw.floodfill(marked, (0, 0), _JOINED)
    cut = picture.convert("RGBA")
    cut.putalpha(Image.fromarray(np.where(np.asarray(marked) == _JOINED, 0, 255).astype(np.uint8)))
    return cut


def laid_on(cut: Image.Image, ground: Colour) -> Image.Image:
    """Return a cut-out thing (RGBA) on a plain ground, as RGB."""
    whole = Image.new("RGBA", cut.size, (*ground, 255))
    whole.alpha_composite(cut)
    return whole.convert("RGB")


def has_plain_ground(picture: Image.Image) -> bool:
    """Whether a picture's whole border is of the colour of its upper left corner."""
    plain = _is_plain(picture)
    return bool(plain[[0, -1]].all() and plain[:, [0, -1]].all())


def _is_plain(picture: Image.Image) -> npt.NDArray[np.bool_]:
    """Return where a picture is of the colour of its upper left corner, bool [height, width]."""
    levels = np.asarray(picture.convert("RGB")).astype(np.int16)
    plain: npt.NDArray[np.bool_] = (np.abs(levels - levels[0, 0]) <= _PLAIN).all(axis=2)
    return plain
