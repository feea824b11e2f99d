"""Which of known pictures is a picture nearest to, by each of several instruments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from mezzotint.trainer.evaluation.pictures import Floats32, colour_histograms, flat_pixels, on_ground
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.grounds import Colour, cut_out

Encode = Callable[[Pixels], Floats32]
"""Turns pictures, uint8 [N, H, W, 3], into rows of numbers, float32 [N, n], that are near where pictures are alike."""

COLOURS, PIXELS, LATENTS = "colours", "pixels", "latents"


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """Known things and the subject, on whatever ground.

    Attributes:
        names: of the known things.
        things: their pictures: uint8 [names, H, W, 4], or [names, H, W, 3] where they bring their own ground.
        subjects: the subject's pictures, their own grounds cut away (RGBA).
        grounds: colours by name; empty where things bring their own.
        encode: turns pictures into the latents that they are compared in.
    """

    names: tuple[str, ...]
    things: Pixels
    subjects: Sequence[Image.Image]
    grounds: Mapping[str, Colour]
    encode: Encode
    _known: dict[tuple[str, str], Floats32] = field(default_factory=dict)

    def on(self, ground: str) -> Pixels:
        """Return all pictures on a ground, uint8 [names + subjects, H, W, 3]: the subject's come last."""
        colour = self.grounds.get(ground, (255, 255, 255))
        side = self.things.shape[1]
        subjects = np.stack([np.array(on_ground(cut, colour, side)) for cut in self.subjects])
        things = self.things
        if things.shape[-1] == 4:
            alpha = things[..., 3:] / 255
            things = (things[..., :3] * alpha + np.array(colour) * (1 - alpha)).round().astype(np.uint8)
        return np.concatenate([things, subjects])

    def nearest(self, images: Pixels, grounds: Sequence[str], instrument: str) -> npt.NDArray[np.int64]:
        """Return the number of the picture, on each image's ground, that is nearest to it; int64 [N].

        ``COLOURS`` goes by the sum of absolute differences of histograms, ``PIXELS`` and ``LATENTS`` by L2. Numbers
        from ``len(names)`` on are the subject's.
        """
        found = self._encoded(images, instrument)
        order = 1 if instrument == COLOURS else 2
        known = {ground: self._of(ground, instrument) for ground in set(grounds)}
        rows = [
            (np.abs(known[ground] - own) ** order).sum(axis=1).argmin()
            for own, ground in zip(found, grounds, strict=True)
        ]
        return np.array(rows, dtype=np.int64)

    def number(self, name: str) -> int:
        """Return the number of a known thing."""
        return self.names.index(name)

    def _of(self, ground: str, instrument: str) -> Floats32:
        key = (ground, instrument)
        if key not in self._known:
            self._known[key] = self._encoded(self.on(ground), instrument)
        return self._known[key]

    def _encoded(self, images: Pixels, instrument: str) -> Floats32:
        encoders: Mapping[str, Encode] = {COLOURS: colour_histograms, PIXELS: flat_pixels, LATENTS: self.encode}
        return encoders[instrument](images)


def cut_outs(pictures: Sequence[Image.Image], cut: bool) -> list[Image.Image]:
    """Return the subject's pictures as a gallery takes them; ``cut`` where its grounds are plain colours."""
    return [cut_out(picture) if cut else picture.convert("RGBA") for picture in pictures]
