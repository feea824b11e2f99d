"""Guidance: each image's rows, weighted and summed. Knows the array API alone; samplers do not know that it exists."""

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.errors import InvalidRequest

Array: TypeAlias = Any
"""An array of any library that follows the Python array API: numpy, CuPy, array_api_strict."""


GUIDANCE = "guidance"
"""The name and role of the UNet's input that models have which were distilled with guidance."""

_EMBEDDING_SCALE, _LONGEST_PERIOD = 1000.0, 10000.0


def embedding(scale: float, width: int) -> npt.NDArray[np.float32]:
    """Return float32 [width], the ``GUIDANCE`` input of one row: sines, then cosines, of the scale over 1.

    diffusers' ``get_guidance_scale_embedding``, which latent consistency models were distilled with (Luo et al. 2023,
    arXiv 2310.04378, section 4.2); an odd width ends in 0.
    """
    half = width // 2
    frequencies = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(_LONGEST_PERIOD) / (half - 1)))
    angles = np.float32((scale - 1.0) * _EMBEDDING_SCALE) * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles), np.zeros(width % 2)]).astype(np.float32)


_ONE_PART = (1.0,)
_LEAST_SHARE = 1e-6  # of their sizes, to which weights must add up: 0.1 + 0.2 - 0.3 is 0 but for rounding


class Weights(tuple[float, ...]):
    """An image's row weights, of which the last are the conditional rows'.

    Attributes:
        rescale: 0 to 1, how much of the conditional output's spread the sum is given back: phi of Lin et al. 2023.
        conditional: what weighs the conditional rows in that output.
    """

    rescale: float = 0.0
    conditional: tuple[float, ...] = _ONE_PART


def weights(scale: float, rescale: float = 0.0, parts: Sequence[float] = _ONE_PART) -> Weights:
    """Return an image's row weights for classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598, equation 6).

    (1 − scale, scale) for the unconditional and the conditional row; for a prompt of several parts, each with a weight
    w, (1 − scale Σw, scale w₁, …, scale wₙ) as A1111 (``combine_denoised`` in ``modules/sd_samplers_cfg_denoiser.py``).
    A scale below 1 counts as 1, as in diffusers, whose turbo models are called with 0. An unconditional row of weight 0
    is left out, and what is then left is not rescaled: at scale ≤ 1 a prompt of one part has (1.0,).

    Raises:
        InvalidRequest: the scale is not finite, or parts that do not add up are to be rescaled.
    """
    if not math.isfinite(scale):
        raise InvalidRequest(f"guidance={scale}: must be a finite number; 7.5 is usual, 1 or less is none")
    scale = max(1.0, float(scale))
    unconditional = 1.0 - scale * math.fsum(parts)
    rows = Weights((*((unconditional,) if unconditional else ()), *(scale * part for part in parts)))
    if rescale and unconditional:
        rows.rescale, rows.conditional = rescale, tuple(alone(parts))
    return rows


def alone(parts: Sequence[float] = _ONE_PART) -> Weights:
    """Return the weights of the conditional rows alone: each part's share of their sum, (1.0,) for a prompt of one.

    Where A1111 leaves the unconditional row out it puts the first part's into its place, so that of two parts of
    weight 1 the second alone is left.

    Raises:
        InvalidRequest: the weights add up to 0, but for rounding, or less.
    """
    total = math.fsum(parts)
    if not total > _LEAST_SHARE * math.fsum(map(abs, parts)):
        raise InvalidRequest(
            f"prompt: the weights of its parts between ANDs add up to {round(total, 6) + 0.0:g}; must be above 0 where "
            "they run without the negative prompt's row (guidance_start, guidance_end) and for guidance_rescale"
        )
    return Weights(part / total for part in parts)


def combine(output: Array, weights: Sequence[Sequence[float]]) -> Array:
    """Sum each image's rows by its weights, and rescale the sums of those that ask for it.

    An image's result is bit for bit the same whoever shares the call: rows are added element by element in their own
    order, from +0.0, which makes the sum never −0.0, so that adding a row of weight 0 changes nothing. An image of
    fewer rows than the largest is padded by its own last row with weight 0, never by a neighbour's row, whose NaN would
    come along.

    Args:
        output: float32 [num_rows, ...] of any array API library; an image's rows are consecutive.
        weights: each image's row weights, in the order of its rows.

    Returns:
        float32 [num_images, ...], on the device of ``output``.

    Raises:
        ValueError: the weights do not count as many rows as there are, or an image has none.
    """
    num_rows = [len(image) for image in weights]
    if sum(num_rows) != output.shape[0] or 0 in num_rows:
        raise ValueError(f"weights for {num_rows} rows of each image, but output has {output.shape[0]} rows in all")
    most = max(num_rows, default=0)
    if not most:
        return output
    table = np.zeros((most, len(weights)), dtype=np.float32)
    for i, image in enumerate(weights):
        table[: len(image), i] = image
    xp = device.xp(output)
    factors = device.from_host(table, output)
    uniform = min(num_rows) == most
    first = np.cumsum([0, *num_rows[:-1]])
    total = 0.0
    for j in range(most):
        if uniform:
            row = output[j::most, ...]
        else:
            index = first + np.minimum(j, np.asarray(num_rows) - 1)
            row = xp.take(output, device.from_host(index, output), axis=0)
        factor = xp.reshape(factors[j, ...], (-1,) + (1,) * (output.ndim - 1))
        total = row * factor + total
    return _rescaled(total, output, weights)


def _rescaled(total: Array, output: Array, weights: Sequence[Sequence[float]]) -> Array:
    """Give sums back the spread of their conditional output (Lin et al. 2023, arXiv 2305.08891, equations 15 and 16).

    One image after the other, so that its figure does not hang on who shares the call.
    """
    asked = [image if isinstance(image, Weights) and image.rescale else None for image in weights]
    if not any(asked):
        return total
    xp = device.xp(total)
    one = xp.ones_like(total[(0,) * total.ndim])
    ends = np.cumsum([len(image) for image in weights]).tolist()
    factors = [
        one if image is None else _spread(image, output[:end, ...], total[i, ...])
        for i, (image, end) in enumerate(zip(asked, ends, strict=True))
    ]
    return total * xp.reshape(xp.stack(factors), (-1, *(1,) * (total.ndim - 1)))


def _spread(weights: Weights, rows: Array, total: Array) -> Array:
    """Return the factor of one image's sum; its rows are the last of ``rows``, its conditional ones the last of all."""
    xp, first = device.xp(total), rows.shape[0] - len(weights.conditional)
    conditional = combine(rows[first:, ...], [weights.conditional])[0, ...]
    # numpy before 2 makes float64 of its own float32 scalar and Python's float
    phi = device.from_host(np.array([weights.rescale, 1.0 - weights.rescale], dtype=np.float32), total)
    return xp.std(conditional) / xp.std(total) * phi[0] + phi[1]
