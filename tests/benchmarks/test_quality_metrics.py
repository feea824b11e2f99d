"""PSNR and SSIM against closed forms and against torch's own convolution; intervals against known ones."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks.quality.metrics import bootstrap, compare, psnr_db, share, ssim

Pixels = npt.NDArray[np.uint8]


def flat(level: int, count: int = 2) -> Pixels:
    return np.full((count, 16, 20, 3), level, dtype=np.uint8)


def noisy(seed: int, shape: tuple[int, ...] = (3, 24, 20, 3)) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_psnr_of_pictures_that_are_all_off_by_one_amount_is_in_its_definition() -> None:
    assert psnr_db(flat(100), flat(110)) == pytest.approx([20 * np.log10(255 / 10)] * 2)
    assert psnr_db(flat(0), flat(255)) == pytest.approx([0.0, 0.0])


def test_equal_pictures_count_as_one_value_one_level_off() -> None:
    off = flat(7)
    off[0, 3, 4, 1] += 1
    assert psnr_db(flat(7), off) == pytest.approx([10 * np.log10(255**2 * 16 * 20 * 3)] * 2)


def test_a_picture_is_wholly_similar_to_itself() -> None:
    assert ssim(noisy(0), noisy(0)) == pytest.approx([1.0] * 3)


def test_flat_pictures_differ_in_luminance_alone() -> None:
    expected = (2 * 60 * 90 + 6.5025) / (60**2 + 90**2 + 6.5025)
    assert ssim(flat(60), flat(90)) == pytest.approx([expected] * 2)


def test_an_inverted_texture_is_dissimilar() -> None:
    texture = noisy(1)
    assert (ssim(texture, 255 - texture) < -0.5).all()


def test_ssim_equals_the_definition_with_torchs_two_dimensional_convolution() -> None:
    a, b = noisy(2), noisy(3)
    b[1] = a[1] // 2 + 40
    x, y = (torch.from_numpy(image).double().permute(0, 3, 1, 2).reshape(-1, 1, 24, 20) for image in (a, b))
    axis = torch.exp(-((torch.arange(11.0, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = torch.outer(axis, axis)[None, None] / axis.sum() ** 2

    def mean(values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(values, window)

    spread_x, spread_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
    shared = mean(x * y) - mean(x) * mean(y)
    above = (2 * mean(x) * mean(y) + 0.0001 * 255**2) * (2 * shared + 0.0009 * 255**2)
    below = (mean(x) ** 2 + mean(y) ** 2 + 0.0001 * 255**2) * (spread_x + spread_y + 0.0009 * 255**2)
    expected = (above / below).reshape(3, -1).mean(dim=1)
    assert ssim(a, b) == pytest.approx(expected.numpy(), abs=1e-9)


def test_many_pictures_are_compared_as_few_are() -> None:
    a, b = noisy(4, (120, 16, 16, 3)), noisy(5, (120, 16, 16, 3))
    found = compare(a, b)
    assert found.ssim.shape == found.psnr_db.shape == (120,)
    assert found.ssim[77] == pytest.approx(ssim(a[77:78], b[77:78])[0])
    assert found.psnr_db[77] == pytest.approx(psnr_db(a[77:78], b[77:78])[0])


def test_pictures_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="both must be one"):
        compare(flat(0), flat(0, count=3))


def test_the_means_interval_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(6).normal(10.0, 2.0, 1000)
    found = bootstrap(values)
    half = 1.96 * float(values.std(ddof=1)) / 1000**0.5
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.02)
    assert bootstrap(values) == found


def test_the_least_value_and_the_tenth_percentile_have_intervals_around_them() -> None:
    values = np.arange(101.0)
    least, tenth = bootstrap(values, "min"), bootstrap(values, "p10")
    assert (least.value, least.low) == (0.0, 0.0)
    assert 0 < least.high < 10
    assert tenth.value == 10.0
    assert 3 < tenth.low < 10 < tenth.high < 18


@pytest.mark.parametrize(
    ("hits", "count", "expected"),  # Wilson 1927's formula by hand: all of n is n / (n + z²) and up
    [(200, 200, (100.0, 100 * 200 / (200 + 3.8415), 100.0)), (5, 10, (50.0, 23.66, 76.34)), (0, 10, (0.0, 0.0, 27.75))],
)
def test_a_share_has_wilsons_interval(hits: int, count: int, expected: tuple[float, float, float]) -> None:
    found = share(np.arange(count) < hits)
    assert (found.value, found.low, found.high) == pytest.approx(expected, abs=0.01)
