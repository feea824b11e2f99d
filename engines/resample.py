"""Arrays of pictures at another size: float32 [C, height, width] times a matrix for each side. Array-API code."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.device import Array

Matrix: TypeAlias = npt.NDArray[np.float32]
"""float32 [new, old]: what each place of a side takes of the old ones."""


def resampled(array: Array, size: tuple[int, int], side: Callable[[int, int], Matrix]) -> Array:
    """Return an array, float32 [C, height, width], at another size, both sides by ``side(old, new)``."""
    xp = device.xp(array)
    rows, columns = (device.from_host(side(old, new), array) for old, new in zip(array.shape[1:], size, strict=True))
    return xp.matmul(xp.matmul(rows, array), xp.permute_dims(columns, (1, 0)))


def averages(old: int, new: int) -> Matrix:
    """Average, for each of fewer places, the old ones that it covers, by the share that it covers of them."""
    edges = np.arange(new + 1) * old / new
    places = np.arange(old)
    covered = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    return np.asarray(np.maximum(covered, 0.0) * new / old, dtype=np.float32)


def bilinear(old: int, new: int) -> Matrix:
    """Mix, for each of more places, the two old ones around it.

    As torch's ``interpolate`` of mode ``bilinear`` does, without aligned corners: places count from their middles.
    """
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(old)), 0.0), dtype=np.float32)
