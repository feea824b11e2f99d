"""What is told of a picture by its pixels: its ground and its colours; and things laid on grounds."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.grounds import Colour, laid_on

Floats32 = npt.NDArray[np.float32]

_BORDER = 4  # pixels along each edge that count as ground
_BINS = 8  # of each colour channel


def grounds_of(images: Pixels, palette: Sequence[Colour]) -> npt.NDArray[np.int64]:
    """Return which colour of ``palette`` is nearest to the median of each picture's border, int64 [N]."""
    inside = (slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    edge = np.ones(images.shape[:3], dtype=np.bool_)
    edge[inside] = False
    medians = np.median(images[edge].reshape(len(images), -1, 3), axis=1)
    nearest: npt.NDArray[np.int64] = np.square(medians[:, None] - np.array(palette)).sum(axis=2).argmin(axis=1)
    return nearest


def colour_histograms(images: Pixels) -> Floats32:
    """Return each picture's shares of 8×8×8 colours, float32 [N, 512]; a level counts for its two nearest bins."""
    levels = images.reshape(len(images), -1, 3).astype(np.float32) / 255 * (_BINS - 1)
    low = np.minimum(levels.astype(np.int64), _BINS - 2)
    part = levels - low
    found = np.zeros((len(images), _BINS**3), dtype=np.float32)
    rows = np.arange(len(images))[:, None]
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner), part, 1 - part).prod(axis=2)
        place = ((low + corner) @ np.array([_BINS**2, _BINS, 1])).astype(np.int64)
        np.add.at(found, (rows, place), weight)
    found /= levels.shape[1]
    return found


def flat_pixels(images: Pixels) -> Floats32:
    """Return pictures as rows of levels in 0…1, float32 [N, H·W·3]."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def on_ground(cut: Image.Image, ground: Colour, side: int) -> Image.Image:
    """Return a cut-out thing on a plain ground, ``side`` pixels wide and high: its picture's middle square."""
    return ImageOps.fit(laid_on(cut, ground), (side, side), Image.Resampling.LANCZOS)
