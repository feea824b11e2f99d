"""From a picture to a square of pixels: shorter side resized, cropped, perhaps mirrored, by numbers drawn for its key.

The same (seed, key) gives the same square, whenever and wherever it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from mezzotint.trainer.draws import generator
from mezzotint.trainer.pictures import Size


@dataclass(frozen=True, slots=True)
class Framing:
    """How pictures are made square.

    Attributes:
        resolution: the square's side, in pixels.
        center_crop: the middle of the longer side; else a part of it, drawn anew each time.
        random_flip: mirror every other square, left to right.
    """

    resolution: int
    center_crop: bool
    random_flip: bool

    def is_fixed(self, size: Size) -> bool:
        """Whether a picture of ``size`` gives the same square each time, but for mirroring."""
        return self.center_crop or size[0] == size[1]

    def flips(self, seed: int, key: int) -> bool:
        """Whether the square of that key is mirrored."""
        return self.random_flip and bool(torch.rand(1, generator=generator(seed, key, "flip")) < 0.5)

    def square(self, picture: Image.Image, seed: int, key: int) -> torch.Tensor:
        """Return the square of a picture for that key: float32 [3, resolution, resolution] in −1…1."""
        if self.is_fixed(picture.size):
            square = middle_square(picture, self.resolution)
        else:
            drawn = torch.rand(1, generator=generator(seed, key, "crop"), dtype=torch.float64)
            square = _square(picture, self.resolution, lambda spare: int(float(drawn) * (spare + 1)))
        return square.flip(-1) if self.flips(seed, key) else square


def middle_square(picture: Image.Image, side: int) -> torch.Tensor:
    """Return the middle of an RGB picture, its shorter side resized: float32 [3, side, side] in −1…1."""
    return _square(picture, side, lambda spare: round(spare / 2))


def _square(picture: Image.Image, side: int, start: Callable[[int], int]) -> torch.Tensor:
    width, height = picture.size
    # The longer side is cut to whole pixels, as torchvision's Resize does.
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    resized = picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (start(length - side) for length in size)
    cut = np.array(resized.crop((left, top, left + side, top + side)))
    return torch.from_numpy(cut).permute(2, 0, 1).to(torch.float32) / 127.5 - 1
