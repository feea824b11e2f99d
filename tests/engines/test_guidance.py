"""Guidance equals the two-pass formula, and no image sees its neighbours."""

import math
from types import ModuleType

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines import guidance
from mezzotint.engines.errors import InvalidRequest

LATENT = (4, 8, 8)


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *LATENT)).astype(np.float32)


def test_a_scale_above_one_weighs_an_unconditional_row_and_others_have_none() -> None:
    assert guidance.weights(7.5) == (-6.5, 7.5)
    assert guidance.weights(1.0) == (1.0,)
    assert guidance.weights(0) == (1.0,)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_a_scale_that_is_no_number_is_refused(scale: float) -> None:
    with pytest.raises(InvalidRequest, match="guidance="):
        guidance.weights(scale)


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=lambda xp: xp.__name__)
@pytest.mark.parametrize("scales", [(7.5,), (7.5, 3.0, 1.5), (1.0, 1.0), (0.0, 7.5, 1.0, 5.0)], ids=str)
def test_the_sum_is_the_two_pass_formula(xp: ModuleType, scales: tuple[float, ...]) -> None:
    weights = [guidance.weights(scale) for scale in scales]
    output = rows(sum(map(len, weights)))
    combined = np.asarray(guidance.combine(xp.asarray(output), weights))
    start = 0
    for image, scale in enumerate(scales):
        uncond, cond = output[start], output[start + len(weights[image]) - 1]
        expected = uncond + scale * (cond - uncond) if scale > 1 else cond
        np.testing.assert_allclose(combined[image], expected, rtol=1e-5, atol=1e-5)
        start += len(weights[image])
    assert combined.dtype == np.float32


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=lambda xp: xp.__name__)
def test_an_image_is_bit_equal_alone_and_beside_others(xp: ModuleType) -> None:
    weights = [(1.0,), (-6.5, 7.5), (1.0, -2.0, 2.0), (1.0,), (-1.0, 2.0)]
    output = rows(9)
    output[0, 0, 0, :4] = [0.0, -0.0, 1e-45, -1e-45]
    mixed = np.asarray(guidance.combine(xp.asarray(output), weights))
    start = 0
    for image, own in enumerate(weights):
        alone = np.asarray(guidance.combine(xp.asarray(output[start : start + len(own)]), [own]))
        assert alone[0].tobytes() == mixed[image].tobytes()
        start += len(own)


@pytest.mark.parametrize("xp", [np, array_api_strict], ids=lambda xp: xp.__name__)
def test_a_rescaled_sum_has_the_conditional_rows_spread_in_part(xp: ModuleType) -> None:
    weights = [
        guidance.weights(7.5, 0.7),
        guidance.weights(3.0),
        guidance.weights(1.0, 0.7),
        guidance.weights(5.0, 1.0),
    ]
    output = rows(7)
    combined = np.asarray(guidance.combine(xp.asarray(output), weights))
    for image, (first, phi) in enumerate(((0, 0.7), (2, 0.0), (4, 0.0), (5, 1.0))):
        own = weights[image]
        plain = sum(row * weight for row, weight in zip(output[first:], own, strict=False))
        factor = output[first + len(own) - 1].std() / plain.std()
        np.testing.assert_allclose(combined[image], plain * (phi * factor + 1 - phi), rtol=1e-5, atol=1e-5)
        alone = np.asarray(guidance.combine(xp.asarray(output[first : first + len(own)]), [own]))
        assert alone[0].tobytes() == combined[image].tobytes()
    assert combined[3].std() == pytest.approx(output[6].std(), rel=1e-5)
    assert combined.dtype == np.float32


def test_a_nan_stays_in_its_image() -> None:
    weights = [(1.0,), (-6.5, 7.5), (1.0,)]
    output = rows(4)
    output[1] = np.nan
    finite = np.isfinite(guidance.combine(output, weights)).all(axis=(1, 2, 3))
    assert finite.tolist() == [True, False, True]


def test_no_images_make_an_empty_output() -> None:
    assert guidance.combine(rows(0), []).shape == (0, *LATENT)


@pytest.mark.parametrize("weights", [[(1.0,)], [(1.0, 2.0, 3.0)], [(1.0,), (), (1.0,)]], ids=str)
def test_weights_that_do_not_fit_the_rows_are_refused(weights: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="output has 2 rows"):
        guidance.combine(rows(2), weights)
