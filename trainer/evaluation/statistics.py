"""How sure a figure is: bootstrap and Wilson intervals, and the PSNR of pairs of pictures. numpy alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Statistic = Callable[..., Any]

_RESAMPLES = 2000
_Z95 = 1.959964

STATISTICS: Mapping[str, Statistic] = {
    "mean": np.mean,
    "median": np.median,
    "p10": partial(np.percentile, q=10),
    "min": np.min,
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Return it for a table cell, the interval in brackets."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}…{self.high:.{digits}f})"

    def rounded(self) -> list[float]:
        """Return value, low and high for JSON."""
        return [round(value, 4) for value in (self.value, self.low, self.high)]


def psnr_db(images_a: Pixels, images_b: Pixels) -> Floats:
    """Return the peak signal-to-noise ratio of each pair in dB, float64 [N].

    Equal pictures count as if one value of one pixel were one level off (89.0 dB at 64×64), so that means exist.
    """
    errors = np.square(images_a.astype(np.float32) - images_b).reshape(len(images_a), -1)
    mean = errors.mean(axis=1, dtype=np.float64)
    result: Floats = 10 * np.log10(255**2 / np.maximum(mean, 1 / errors.shape[1]))
    return result


def bootstrap(values: npt.NDArray[Any], statistic: str = "mean") -> Estimate:
    """Return a statistic of ``values`` [N] with its 95 % percentile interval over resampled pairs.

    All arrays of one length are resampled alike. The least value's interval has no room below: no resample goes lower.
    """
    of = STATISTICS[statistic]
    picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(of(values[picks], axis=1), [2.5, 97.5]).tolist()
    return Estimate(float(of(values)), low, high)


def share(hits: Bools) -> Estimate:
    """Return the per cent that are true, with Wilson's 95 % interval, which stays honest where all are."""
    n, p = len(hits), float(hits.mean())
    middle = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n**2)))
    return Estimate(100 * p, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))


def points(hits: Bools, others: Bools) -> Estimate:
    """Return by how many points of a hundred a share is above another of the same pairs, and the interval of that."""
    return bootstrap(100.0 * (hits.astype(np.float64) - others))
