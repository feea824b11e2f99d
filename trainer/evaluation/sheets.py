"""Sheets of pictures to look at: a row for each model, a column for each case."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mezzotint.trainer.evaluation.statistics import Pixels

_SIDE, _MARGIN, _LABEL_WIDTH = 128, 18, 150  # pixels
_LETTERS = _SIDE // 6  # of a column's title


def sheet(rows: Mapping[str, Pixels], titles: Sequence[str]) -> Image.Image:
    """Return a sheet of labelled rows, each of as many pictures as there are ``titles``: uint8 [N, H, W, 3]."""
    size = (_LABEL_WIDTH + _SIDE * len(titles), _MARGIN + _SIDE * len(rows))
    made = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(size=12)
    for column, title in enumerate(titles):
        draw.text((_LABEL_WIDTH + column * _SIDE + 2, 2), title[:_LETTERS], fill="black", font=font)
    for row, (label, images) in enumerate(rows.items()):
        top = _MARGIN + row * _SIDE
        draw.text((4, top + _SIDE // 2), label, fill="black", font=font)
        for column, pixels in enumerate(images[: len(titles)]):
            how = Image.Resampling.NEAREST if pixels.shape[0] < _SIDE else Image.Resampling.LANCZOS
            large = Image.fromarray(np.ascontiguousarray(pixels)).resize((_SIDE, _SIDE), how)
            made.paste(large, (_LABEL_WIDTH + column * _SIDE, top))
    return made
