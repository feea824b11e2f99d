"""A picture decoded in overlapping tiles of one size, where the memory for a whole decode is not there.

Each tile is a call of the decoder's ``tile`` engine, which takes the statistics that its group norms use instead of the
tile's own. They are measured in the first call, on a small copy of the whole picture of the same size as a tile, so
that all tiles agree in colour. Array-API code but for the pixels, which are blended on the host. Knows no engine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.device import Array
from mezzotint.engines.resample import averages, resampled

OVERLAP = 0.25
"""The least share of a tile's side that it has in common with the next one."""
RING = 3
"""Latent pixels from the border on within which a decoder's norms measure something else; engines are built for it."""

_MARGIN = 1  # latent pixels at a tile's edge, which see nothing beyond, that are blended in nowhere but at a border


@dataclass(frozen=True, slots=True)
class Tiling:
    """Where a picture's tiles are, in latent pixels.

    Attributes:
        picture: (height, width) of the whole.
        tile: those of each tile.
        factor: pixels that a latent pixel is wide.
        corners: (top, left) of each tile, row by row.
    """

    picture: tuple[int, int]
    tile: tuple[int, int]
    factor: int
    corners: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, picture: tuple[int, int], most: tuple[int, int], factor: int) -> "Tiling":
        """Return as few tiles of at most a size as cover a picture with ``OVERLAP``, evenly spread."""
        height, width = (min(lengths) for lengths in zip(picture, most, strict=True))
        tops, lefts = starts(picture[0], height), starts(picture[1], width)
        return cls(picture, (height, width), factor, tuple((top, left) for top in tops for left in lefts))


@dataclass(slots=True, eq=False)
class Tiles:
    """The tiles of one picture on their way: call 0 looks at a small copy, each further one decodes a tile.

    Attributes:
        statistics: float32 [2, groups], what call 0 measured.
        canvas: float32 [3, H, W] on the host, the sum of the tiles' weighted pixels.
    """

    tiling: Tiling
    statistics: Array | None = None
    canvas: npt.NDArray[np.float32] = field(init=False)
    _weights: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        factor = self.tiling.factor
        self.canvas = np.zeros((3, *(length * factor for length in self.tiling.picture)), dtype=np.float32)
        rows, columns = (ramp(length, factor) for length in self.tiling.tile)
        self._weights = rows[:, None] * columns

    @property
    def num_calls(self) -> int:
        """The calls that decode the picture."""
        return 1 + len(self.tiling.corners)

    def latents(self, sample: Array, call: int) -> Array:
        """Return what a call decodes, float32 [C, h, w], of the picture's sample, float32 [C, height, width]."""
        if not call:
            return small_copy(sample, self.tiling.tile)
        (top, left), (height, width) = self.tiling.corners[call - 1], self.tiling.tile
        return sample[:, top : top + height, left : left + width]

    def given(self, num_groups: int, like: Array) -> Array:
        """Return the statistics that its next call's norms take, float32 [2, groups]; zeros are none."""
        if self.statistics is None:
            return device.from_host(np.zeros((2, num_groups), dtype=np.float32), like)
        return self.statistics

    def inner(self, like: Array) -> Array:
        """Return how much of the picture its next call's norms are to measure away from the border, float32 [1]."""
        shares = [max(0.0, 1 - 2 * RING / length) for length in self.tiling.picture]
        share = shares[0] * shares[1] if self.statistics is None else 0.0
        return device.from_host(np.array([share], dtype=np.float32), like)

    def take(self, call: int, pixels: Array, statistics: Array) -> None:
        """Take what a call made: pixels float32 [3, h, w] in −1…1, and what its norms measured."""
        if not call:
            self.statistics = device.copied(statistics)
            return
        self.place(call, self.canvas)[...] += device.to_host(pixels) * self._weights

    def blended(self) -> npt.NDArray[np.float32]:
        """Return the picture, float32 [3, H, W]: where tiles overlap one fades into the next, linearly."""
        total = np.zeros(self.canvas.shape[1:], dtype=np.float32)
        for call in range(1, self.num_calls):
            self.place(call, total)[...] += self._weights
        return self.canvas / total

    def place(self, call: int, array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a view of the part of a picture, float32 [..., H, W], that a call's tile covers."""
        factor = self.tiling.factor
        (top, left), (height, width) = self.tiling.corners[call - 1], self.tiling.tile
        rows, columns = (slice(at * factor, (at + n) * factor) for at, n in ((top, height), (left, width)))
        return array[..., rows, columns]


def starts(length: int, tile: int) -> Sequence[int]:
    """Return where the tiles of one side begin: as few as cover ``length`` with ``OVERLAP``, evenly spread."""
    stride = max(1, math.floor(tile * (1 - OVERLAP)))
    num_more = math.ceil((length - tile) / stride)
    return [round(i * (length - tile) / num_more) for i in range(num_more + 1)] if num_more > 0 else [0]


def ramp(length: int, factor: int) -> npt.NDArray[np.float32]:
    """Return the weights of a tile's pixels along one side of so many latent pixels, float32 [length * factor].

    They rise and fall linearly inside of ``OVERLAP``. Those at the edge are so small that they count at the picture's
    border alone, where no other tile is.
    """
    from_edge = np.arange(length * factor) + 0.5
    from_edge = np.minimum(from_edge, from_edge[::-1]) - _MARGIN * factor
    width = (length * OVERLAP - 2 * _MARGIN) * factor
    return np.asarray(np.clip(from_edge / max(width, 1.0), 1e-6, 1.0), dtype=np.float32)


def small_copy(sample: Array, size: tuple[int, int]) -> Array:
    """Return a sample, float32 [C, height, width], averaged to a size, with each channel's mean and deviation kept.

    Averages of latents alone are paler than latents: the decoder's norms would measure less than in the whole.
    """
    small = resampled(sample, size, averages)
    mean, deviation = _moments(sample)
    small_mean, small_deviation = _moments(small)
    return (small - small_mean) * (deviation / (small_deviation + 1e-6)) + mean


def _moments(sample: Array) -> tuple[Array, Array]:
    xp = device.xp(sample)
    return xp.mean(sample, axis=(1, 2), keepdims=True), xp.std(sample, axis=(1, 2), keepdims=True)
