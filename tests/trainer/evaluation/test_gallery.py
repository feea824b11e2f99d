"""The instruments that tell the subject from all that the demo model knows, tried on what they should find."""

from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from mezzotint.trainer.evaluation.gallery import COLOURS, LATENTS, PIXELS
from mezzotint.trainer.evaluation.pictures import colour_histograms, grounds_of, on_ground
from mezzotint.trainer.grounds import cut_out
from tests.trainer.evaluation.known import SUITE, gallery, noisy


@pytest.mark.parametrize("instrument", [COLOURS, PIXELS, LATENTS])
@pytest.mark.parametrize("ground", ["white", *SUITE.subject.grounds])
def test_every_known_picture_is_nearest_to_itself_or_its_like_and_the_subjects_to_the_subject(
    ground: str, instrument: str
) -> None:
    pictures = gallery().on(ground)
    found = gallery().nearest(noisy(pictures), [ground] * len(pictures), instrument)
    num_names = len(gallery().names)
    assert (found[num_names:] >= num_names).all()
    assert (found[:num_names] < num_names).all()
    if instrument != COLOURS:
        assert (found[:num_names] == np.arange(num_names)).all()


def test_a_turquoise_square_is_no_cat_by_its_pixels() -> None:
    square = np.full((1, 64, 64, 3), 255, dtype=np.uint8)
    square[:, 24:40, 24:40] = (45, 240, 255)
    assert gallery().nearest(square, ["white"], PIXELS)[0] < len(gallery().names)


def test_grounds_are_told_by_the_border() -> None:
    palette = list(SUITE.grounds.values())
    found = [int(grounds_of(noisy(gallery().on(ground)), palette)[0]) for ground in SUITE.grounds]
    assert found == list(range(len(palette)))


def test_histograms_are_shares_that_do_not_jump_between_bins() -> None:
    levels = np.array([[0, 0, 0], [255, 255, 255], [72, 73, 74], [73, 74, 75]], dtype=np.uint8)
    found = colour_histograms(np.broadcast_to(levels[:, None, None], (4, 8, 8, 3)))
    assert found.sum(axis=1) == pytest.approx([1.0] * 4)
    assert found[0, 0] == pytest.approx(1.0)
    assert found[1, -1] == pytest.approx(1.0)
    assert np.abs(found[2] - found[3]).sum() < 0.2


def drawn(boxes: Sequence[tuple[tuple[int, int, int, int], tuple[int, int, int]]]) -> Image.Image:
    picture = Image.new("RGB", (40, 40), "white")
    for box, colour in boxes:
        picture.paste(colour, box)
    return picture


def test_a_thing_is_cut_out_whole_with_what_is_white_inside_it() -> None:
    cut = cut_out(drawn([((10, 10, 30, 30), (200, 0, 0)), ((18, 18, 22, 22), (255, 255, 255))]))
    laid = np.array(on_ground(cut, (0, 0, 250), 40))
    assert laid[2, 2].tolist() == [0, 0, 250]
    assert laid[20, 20].tolist() == [255, 255, 255]
    assert laid[12, 12].tolist() == [200, 0, 0]


def test_of_a_wide_picture_the_middle_square_is_taken_and_nothing_is_squashed() -> None:
    wide = Image.new("RGB", (80, 40), "white")
    wide.paste((200, 0, 0), (30, 10, 50, 30))
    laid = np.array(on_ground(wide.convert("RGBA"), (0, 0, 250), 40))
    assert (laid == np.array(drawn([((10, 10, 30, 30), (200, 0, 0))]))).all()
