"""What a request begins with in the place of noise alone: an initial picture, and a mask of what is drawn anew.

Owns the fields and their checks; ``canvas.py`` makes latents of them. Imports the manifest and the errors.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.sampling import skipped_steps
from mezzotint.engines.variants import FULL, has_variant

MAX_MASK_BLUR = 64.0


class ResizeMode(StrEnum):
    """How a picture of another size becomes one of the size that is painted; A1111's three ways.

    ``stretch`` scales each side by itself ("Just resize"), ``crop`` scales until all is covered and cuts what is over
    ("Crop and resize"), ``fill`` scales until all of it is inside and repeats its edges ("Resize and fill"). All scale
    by Lanczos's filter.
    """

    STRETCH = "stretch"
    CROP = "crop"
    FILL = "fill"


@dataclass(frozen=True, slots=True)
class Start:
    """An initial picture; without one a request begins with noise.

    Attributes:
        image: a PNG, JPEG or WebP file; empty is none.
        strength: 0 to 1, how much becomes of it: the share of the steps that are made, the last ones.
        mask: a file of the picture's size: white is drawn anew and black stays; empty is all of it.
        mask_blur: pixels, the standard deviation by which the mask's edge is feathered where the drawn is laid over
            the picture.
        resize_mode: ``stretch``, ``crop`` or ``fill`` for pictures of another size; empty is ``stretch``.
    """

    image: bytes = field(default=b"", repr=False)
    strength: float = 0.8
    mask: bytes = field(default=b"", repr=False)
    mask_blur: float = 0.0
    resize_mode: str = ""

    @property
    def is_given(self) -> bool:
        """Whether there is a picture."""
        return bool(self.image)

    @property
    def mode(self) -> ResizeMode:
        """How pictures of another size are resized."""
        return ResizeMode(self.resize_mode or ResizeMode.STRETCH)

    def skipped_steps(self, num_steps: int) -> int:
        """Return how many of the first steps are left out. Raises InvalidRequest where that is all of them."""
        return skipped_steps(num_steps, self.strength) if self.is_given else 0

    def check(self, manifest: Manifest) -> None:
        """Refuse what no engine of the bundle could begin with. Raises InvalidRequest."""
        if not self.is_given:
            self._check_nothing()
            return
        if not has_variant(manifest, Component.VAE_ENCODER, FULL):
            raise InvalidRequest(
                f"image: bundle {manifest.name} has no {Component.VAE_ENCODER} engine to read it with; compile it again"
            )
        if not math.isfinite(self.mask_blur) or not 0 <= self.mask_blur <= MAX_MASK_BLUR:
            raise InvalidRequest(
                f"mask_blur={self.mask_blur:g}: must be between 0 and {MAX_MASK_BLUR:g} pixels; 4 is usual, 0 is none"
            )
        if self.mask_blur and not self.mask:
            raise InvalidRequest(f"mask_blur={self.mask_blur:g}: feathers a mask, and there is none; send one")
        if self.resize_mode and self.resize_mode not in set(ResizeMode):
            raise InvalidRequest(f"resize_mode={self.resize_mode!r}: must be one of {', '.join(ResizeMode)}, or empty")

    def _check_nothing(self) -> None:
        for name in ("mask", "strength", "mask_blur", "resize_mode"):
            if getattr(self, name) != getattr(NO_START, name):
                raise InvalidRequest(f"{name}: says what becomes of an initial picture, and there is none; send image")


NO_START = Start()
"""Noise alone."""
