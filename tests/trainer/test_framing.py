"""Squares of pictures: resized, cropped and mirrored by numbers that hang on the key alone."""

import numpy as np
import torch
from PIL import Image

from mezzotint.trainer.framing import Framing, middle_square


def ramp(width: int, height: int) -> Image.Image:
    """A picture whose red grows to the right and whose green grows downwards."""
    x = np.linspace(0, 255, width)[None].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1).astype(np.uint8))


def test_the_middle_of_the_longer_side_is_taken() -> None:
    square = middle_square(ramp(96, 32), 32)
    assert square.shape == (3, 32, 32)
    assert square.dtype == torch.float32
    expected = np.asarray(ramp(96, 32), np.float32)[:, 32:64].transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(square.numpy(), expected, atol=1e-6)


def test_the_shorter_side_is_resized_and_nothing_is_stretched() -> None:
    square = middle_square(ramp(64, 128), 32)
    # 64x128 becomes 32x64, of which the middle 32 rows are taken: green goes from a quarter to three quarters.
    green = (square[1, :, 0].numpy() + 1) / 2
    assert abs(green[0] - 0.25) < 0.02
    assert abs(green[-1] - 0.75) < 0.02
    assert square[0].min() < -0.95
    assert square[0].max() > 0.95


def test_a_crop_is_drawn_anew_for_each_key_and_the_same_for_one() -> None:
    framing, picture = Framing(32, center_crop=False, random_flip=False), ramp(96, 32)
    lefts = {float(framing.square(picture, 0, key)[0, 0, 0]) for key in range(40)}
    assert len(lefts) > 20
    torch.testing.assert_close(framing.square(picture, 0, 7), framing.square(picture, 0, 7), atol=0, rtol=0)
    assert not torch.equal(framing.square(picture, 0, 7), framing.square(picture, 1, 7))


def test_crops_reach_both_ends() -> None:
    framing, picture = Framing(8, center_crop=False, random_flip=False), ramp(11, 8)
    lefts = [float(framing.square(picture, 0, key)[0, 0, 0]) for key in range(200)]
    assert len(set(lefts)) == 4
    assert min(lefts) == -1
    assert min(lefts.count(left) for left in set(lefts)) > 25


def test_every_other_square_is_mirrored() -> None:
    framing, picture = Framing(32, center_crop=True, random_flip=True), ramp(32, 32)
    flips = [framing.flips(3, key) for key in range(400)]
    assert 150 < sum(flips) < 250
    plain = middle_square(picture, 32)
    for key in range(8):
        expected = plain.flip(-1) if flips[key] else plain
        torch.testing.assert_close(framing.square(picture, 3, key), expected, atol=0, rtol=0)
    assert not any(Framing(32, center_crop=True, random_flip=False).flips(3, key) for key in range(20))


def test_a_square_picture_is_fixed_and_another_is_when_cropped_at_the_centre() -> None:
    free = Framing(32, center_crop=False, random_flip=True)
    assert free.is_fixed((64, 64))
    assert not free.is_fixed((65, 64))
    assert Framing(32, center_crop=True, random_flip=True).is_fixed((65, 64))
