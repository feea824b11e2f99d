"""How far two sets of pictures are apart: PSNR and SSIM. Intervals are those of ``mezzotint evaluate``."""

from dataclasses import dataclass

import numpy as np

from mezzotint.trainer.evaluation.statistics import (
    STATISTICS,
    Estimate,
    Floats,
    Pixels,
    bootstrap,
    points,
    psnr_db,
    share,
)

__all__ = [
    "STATISTICS",
    "Comparison",
    "Estimate",
    "Floats",
    "Pixels",
    "bootstrap",
    "compare",
    "points",
    "psnr_db",
    "share",
    "ssim",
]

_WINDOW, _SIGMA = 11, 1.5  # Wang et al. 2004, section III-B, as are the two constants
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_AT_ONCE = 50  # pictures in one pass, to bound memory


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of pictures, pair by pair: PSNR in dB and SSIM, each float64 [N]."""

    psnr_db: Floats
    ssim: Floats


def compare(images_a: Pixels, images_b: Pixels) -> Comparison:
    """Compare uint8 [N, H, W, 3] pictures pair by pair. Raises ValueError where the shapes differ."""
    if images_a.shape != images_b.shape or images_a.ndim != 4:
        raise ValueError(f"images_a is {images_a.shape}, images_b {images_b.shape}; both must be one [N, H, W, 3]")
    return Comparison(psnr_db(images_a, images_b), ssim(images_a, images_b))


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
