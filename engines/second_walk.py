"""What a picture goes on with where hires fix enlarges it: a second walk, at another size. Knows no engine."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from mezzotint.engines.canvas import Canvas, Given
from mezzotint.engines.device import Array
from mezzotint.engines.evaluations import UNetCall
from mezzotint.engines.initial_picture import resized
from mezzotint.engines.resample import bilinear, resampled
from mezzotint.engines.sampling import Plan
from mezzotint.engines.start import ResizeMode
from mezzotint.engines.tiles import Tiling


@dataclass(frozen=True, slots=True, eq=False)
class SecondWalk:
    """The walk that begins with what the first one has painted, enlarged; pictures of a request share it.

    Attributes:
        plan: of the steps that are made.
        calls: what each of its model evaluations calls.
        shape: (C, height, width) of its latents.
        pixels: (height, width) of the picture.
        decoder: the engines that decode the picture, by variant.
        tiling: where its tiles are; None where it is decoded whole.
        from_pixels: whether pixels are enlarged, by Lanczos's filter, and not latents.
    """

    plan: Plan
    calls: tuple[UNetCall, ...]
    shape: tuple[int, int, int]
    pixels: tuple[int, int]
    decoder: tuple[str, ...]
    tiling: Tiling | None
    from_pixels: bool

    def enlarged(self, sample: Array) -> Array:
        """Return latents, float32 [C, height, width], at this walk's size, as A1111's ``Latent`` upscaler does it."""
        return resampled(sample, self.shape[1:], bilinear)

    def canvas(self, pixels: npt.NDArray[np.uint8]) -> Canvas:
        """Return what a picture, uint8 [H, W, 3], gives to begin on at this walk's size."""
        picture = np.asarray(resized(Image.fromarray(pixels), self.pixels, ResizeMode.STRETCH))
        return Canvas(Given(picture, None, None, strength=1.0, fills_in=False))
