"""The safety checker: CLIP's preprocessing before its engine, and diffusers' rule behind it.

Imports numpy, Pillow, the manifest and the engine's contract.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from mezzotint.engines import device
from mezzotint.engines.backend import Engine
from mezzotint.engines.manifest import SafetyEntry

CLIP_PIXELS = "pixels"
SPECIAL_SCORES = "special_scores"
CONCEPT_SCORES = "concept_scores"

_STRICTER = 0.01  # what diffusers adds to all later scores once it has found a special concept
_DIGITS = 3  # diffusers rounds scores before it looks at their sign


class SafetyChecker:
    """Says which pictures its checkpoint's authors would not show.

    Args:
        engine: takes ``CLIP_PIXELS``, float32 [rows, 3, crop, crop]; gives ``SPECIAL_SCORES`` and ``CONCEPT_SCORES``,
            float32 [rows, concepts]: by how much the cosine of picture and concept passes the concept's threshold.
        entry: how pictures become ``CLIP_PIXELS``.
    """

    def __init__(self, engine: Engine, entry: SafetyEntry) -> None:
        self._engine = engine
        self._entry = entry

    def flags(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> list[bool]:
        """Return whether each picture, uint8 [H, W, 3], is flagged. Raises EngineFailed."""
        outputs = self._engine.run({CLIP_PIXELS: np.stack([clip_input(picture, self._entry) for picture in pictures])})
        special, concepts = (device.to_host(outputs[name]) for name in (SPECIAL_SCORES, CONCEPT_SCORES))
        return [is_flagged(*scores) for scores in zip(special, concepts, strict=True)]


def clip_input(pixels: npt.NDArray[np.uint8], entry: SafetyEntry) -> npt.NDArray[np.float32]:
    """Return uint8 [H, W, 3] as float32 [3, crop, crop]: resized, cut from the middle and normalised.

    Bit for bit what transformers' CLIPImageProcessor gives on Pillow, without torchvision.
    """
    height, width, _ = pixels.shape
    short, long = entry.shortest_edge, entry.shortest_edge * max(height, width) // min(height, width)
    size = (short, long) if width <= height else (long, short)
    resized = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    top, left = ((length - entry.crop) // 2 for length in resized.shape[:2])
    cut = resized[top : top + entry.crop, left : left + entry.crop]
    unit = (cut * (1 / 255)).astype(np.float32)
    normal = (unit - np.array(entry.mean, np.float32)) / np.array(entry.std, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1))


def is_flagged(special_scores: npt.NDArray[np.float32], concept_scores: npt.NDArray[np.float32]) -> bool:
    """Return whether one picture's scores, float32 [concepts] each, flag it, as StableDiffusionSafetyChecker does.

    A special concept that is found flags nothing, but makes all scores after its own higher.
    """
    stricter = 0.0
    for score in special_scores:
        if round(score + stricter, _DIGITS) > 0:
            stricter = _STRICTER
    return any(round(score + stricter, _DIGITS) > 0 for score in concept_scores)
