"""Things on plain grounds: cut out, and laid on others. Imports Pillow and numpy."""

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
"""Levels of red, green and blue."""

_PLAIN = 24  # how far a channel's level may be from the corner's and still be ground
_KEY = (1, 254, 3)  # a colour that hardly any picture has


def cut_out(picture: Image.Image) -> Image.Image:
    """Return a picture of a thing on a plain ground with the ground clear (RGBA): what joins its upper left corner."""
    marked = picture.convert("RGB")
    ImageDraw.floodfill(marked, (0, 0), _KEY, thresh=_PLAIN)
    cut = picture.convert("RGBA")
    ground = (np.array(marked) == _KEY).all(axis=2)
    cut.putalpha(Image.fromarray(np.where(ground, 0, 255).astype(np.uint8)))
    return cut


def laid_on(cut: Image.Image, ground: Colour) -> Image.Image:
    """Return a cut-out thing (RGBA) on a plain ground, as RGB."""
    whole = Image.new("RGBA", cut.size, (*ground, 255))
    whole.alpha_composite(cut)
    return whole.convert("RGB")


def has_plain_ground(picture: Image.Image) -> bool:
    """Whether a picture's whole border is of the colour of its upper left corner."""
    levels = np.asarray(picture.convert("RGB")).astype(np.int16)
    border = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return bool((np.abs(border - levels[0, 0]) <= _PLAIN).all())
