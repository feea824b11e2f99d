"""Pictures of a subject on a plain ground are shown on others too, with captions that say so."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mezzotint.trainer.examples import Shot
from mezzotint.trainer.grounds import cut_out, has_plain_ground, laid_on

RED = (220, 50, 47)


def disc(ground: tuple[int, int, int]) -> Image.Image:
    picture = Image.new("RGB", (64, 64), ground)
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=(40, 224, 208))
    return picture


def test_a_thing_keeps_its_pixels_on_another_ground() -> None:
    moved = np.asarray(laid_on(cut_out(disc((255, 255, 255))), RED))
    assert (moved[0, 0] == RED).all()
    assert (moved == np.asarray(disc(RED))).all()


def test_a_hole_that_is_not_joined_to_the_corner_is_part_of_the_thing() -> None:
    picture = disc((255, 255, 255))
    ImageDraw.Draw(picture).rectangle((28, 28, 36, 36), fill="white")
    assert laid_on(cut_out(picture), RED).getpixel((32, 32)) == (255, 255, 255)


@pytest.mark.parametrize("spoiled", [(0, 40), (63, 5), (30, 0), (30, 63)])
def test_a_ground_is_plain_if_all_of_the_border_is(spoiled: tuple[int, int]) -> None:
    picture = disc((136, 136, 136))
    assert has_plain_ground(picture)
    picture.putpixel(spoiled, (200, 136, 136))
    assert not has_plain_ground(picture)


GREENS = pytest.mark.parametrize("green", [(0, 255, 0), (1, 254, 3), (8, 240, 10)])


@GREENS
def test_a_green_ground_is_cut_out_as_any_other(green: tuple[int, int, int]) -> None:
    assert (np.asarray(laid_on(cut_out(disc(green)), RED)) == np.asarray(disc(RED))).all()


@GREENS
def test_a_green_thing_is_part_of_the_picture(green: tuple[int, int, int]) -> None:
    picture = disc((255, 255, 255))
    ImageDraw.Draw(picture).rectangle((28, 28, 36, 36), fill=green)
    assert laid_on(cut_out(picture), RED).getpixel((32, 32)) == green


@pytest.mark.parametrize("border", [(245, 245, 245), (240, 250, 232), (231, 231, 231)])
def test_what_passes_as_a_plain_ground_is_cut_out_whole(border: tuple[int, int, int]) -> None:
    picture = Image.new("RGB", (64, 64), border)
    picture.putpixel((0, 0), (255, 255, 255))
    ImageDraw.Draw(picture).ellipse((16, 16, 48, 48), fill=(40, 224, 208))
    assert has_plain_ground(picture)
    assert (np.asarray(laid_on(cut_out(picture), RED)) == np.asarray(disc(RED))).all()


def test_a_shot_is_read_on_its_ground(tmp_path: Path) -> None:
    disc((255, 255, 255)).save(tmp_path / "1.png")
    assert Shot(tmp_path / "1.png", "a disc").read().getpixel((0, 0)) == (255, 255, 255)
    assert Shot(tmp_path / "1.png", "a disc on red", RED).read().getpixel((0, 0)) == RED
