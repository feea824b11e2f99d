"""How far two sets of pictures are apart, and how sure a figure is: PSNR, SSIM, bootstrap and Wilson intervals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Statistic = Callable[..., Any]

_WINDOW, _SIGMA = 11, 1.5  # Wang et al. 2004, section III-B, as are the two constants
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_AT_ONCE = 50  # pictures in one pass, to bound memory
_RESAMPLES = 2000
_Z95 = 1.959964

STATISTICS: Mapping[str, Statistic] = {
    "mean": np.mean,
    "median": np.median,
    "p10": partial(np.percentile, q=10),
    "min": np.min,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of pictures, pair by pair: PSNR in dB and SSIM, each float64 [N]."""

    psnr_db: Floats
    ssim: Floats


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """Return it for a table cell, the interval in brackets."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f}…{self.high:.{digits}f})"


def compare(images_a: Pixels, images_b: Pixels) -> Comparison:
    """Compare uint8 [N, H, W, 3] pictures pair by pair. Raises ValueError where the shapes differ."""
    if images_a.shape != images_b.shape or images_a.ndim != 4:
        raise ValueError(f"images_a is {images_a.shape}, images_b {images_b.shape}; both must be one [N, H, W, 3]")
    return Comparison(psnr_db(images_a, images_b), ssim(images_a, images_b))


def psnr_db(images_a: Pixels, images_b: Pixels) -> Floats:
    """Return the peak signal-to-noise ratio of each pair in dB, float64 [N].

    Equal pictures count as if one value of one pixel were one level off (89.0 dB at 64×64), so that means exist.
    """
    errors = np.square(images_a.astype(np.float32) - images_b).reshape(len(images_a), -1)
    mean = errors.mean(axis=1, dtype=np.float64)
    result: Floats = 10 * np.log10(255**2 / np.maximum(mean, 1 / errors.shape[1]))
    return result


def ssim(images_a: Pixels, images_b: Pixels) -> Floats:
    """Return the structural similarity of each pair, float64 [N]: the mean over positions and over R, G and B.

    Wang et al. 2004, equation 13, with its gaussian window of 11×11 and σ 1.5, where it lies wholly in the picture.
    """
    firsts = range(0, len(images_a), _AT_ONCE)
    parts = [_ssim(images_a[i : i + _AT_ONCE], images_b[i : i + _AT_ONCE]) for i in firsts]
    return np.concatenate(parts) if parts else np.zeros(0)


def _ssim(images_a: Pixels, images_b: Pixels) -> Floats:
    a, b = images_a.astype(np.float64), images_b.astype(np.float64)
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    structure = (2 * covariance + _C2) / (var_a + var_b + _C2)
    result: Floats = (luminance * structure).mean(axis=(1, 2, 3))
    return result


def _blur(images: Floats) -> Floats:
    """Weigh each window's pixels by the gaussian; float64 [N, H, W, C] becomes [N, H − 10, W − 10, C]."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        images = np.lib.stride_tricks.sliding_window_view(images, _WINDOW, axis=axis) @ kernel
    return images


def bootstrap(values: npt.NDArray[Any], statistic: str = "mean") -> Estimate:
    """Return a statistic of ``values`` [N] with its 95 % percentile interval over resampled pairs.

    All arrays of one length are resampled alike. The least value's interval has no room below: no resample goes lower.
    """
    of = STATISTICS[statistic]
    picks = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(of(values[picks], axis=1), [2.5, 97.5]).tolist()
    return Estimate(float(of(values)), low, high)


def share(hits: npt.NDArray[np.bool_]) -> Estimate:
    """Return the per cent that are true, with Wilson's 95 % interval, which stays honest where all are."""
    n, p = len(hits), float(hits.mean())
    middle = (p + _Z95**2 / (2 * n)) / (1 + _Z95**2 / n)
    half = _Z95 / (1 + _Z95**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n**2)))
    return Estimate(100 * p, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))
