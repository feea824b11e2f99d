"""Reading pictures: whatever people keep in such folders is read as they see it, or refused by name."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.pictures import check_pictures, find_pictures, left_out, read_picture

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
ORIENTATION = 0x0112


def two_halves(mode: str = "RGB") -> Image.Image:
    """A picture of 40x20 pixels, red on the left and blue on the right."""
    picture = Image.new("RGB", (40, 20), BLUE)
    picture.paste(RED, (0, 0, 20, 20))
    return picture.convert(mode)


def near(pixel: object, colour: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.array(pixel, int) - colour).max() < 16)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "PNG"])
def test_each_format_is_turned_as_its_exif_says(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the camera's right side is up: to be turned clockwise by a quarter
    path = tmp_path / f"turned.{suffix}"
    two_halves().save(path, exif=exif, quality=95)
    picture = read_picture(path)
    assert (picture.mode, picture.size) == ("RGB", (20, 40))
    assert near(picture.getpixel((10, 5)), RED)
    assert near(picture.getpixel((10, 35)), BLUE)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "cut.png"
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (10, 0, 20, 20))
    if mode == "P":
        indexed = Image.new("P", (20, 20), 0)
        indexed.putpalette([*RED, 0, 0, 0])
        indexed.paste(1, (10, 0, 20, 20))
        indexed.save(path, transparency=0)
    elif mode == "PA":
        picture.convert("RGBA").save(path.with_suffix(".webp"), lossless=True)
        path = path.with_suffix(".webp")
    else:
        picture.convert(mode).save(path)
    read = read_picture(path)
    assert read.getpixel((3, 3)) == WHITE
    assert read.getpixel((15, 3)) == (0, 0, 0)


def test_grey_of_sixteen_bits_keeps_its_steps(tmp_path: Path) -> None:
    steps = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(steps).save(tmp_path / "grey.png")
    read = np.asarray(read_picture(tmp_path / "grey.png"))
    np.testing.assert_array_equal(read[..., 0], steps >> 8)
    np.testing.assert_array_equal(read[..., 2], steps >> 8)


def test_a_printer_s_four_colours_become_three(tmp_path: Path) -> None:
    two_halves("CMYK").save(tmp_path / "print.jpg", quality=95)
    read = read_picture(tmp_path / "print.jpg")
    assert near(read.getpixel((5, 10)), RED)
    assert near(read.getpixel((35, 10)), BLUE)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_that_ends_too_early_is_refused_wherever_it_ends(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(noise).save(whole, kind)
    path = tmp_path / "cut.png"
    # JPEG's last two bytes, PNG's last chunk and WebP's padding say only that it ends.
    for length in range(0, len(whole.getvalue()) - 20, 7):
        path.write_bytes(whole.getvalue()[:length])
        with pytest.raises(TrainError, match=r"cut\.png: cannot be read as PNG, JPEG or WebP"):
            read_picture(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_file_is_read_or_refused_but_never_crashes(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    two_halves().save(whole, kind, exif=exif)
    rng = np.random.default_rng(1)
    path, refused = tmp_path / "damaged.png", 0
    for _ in range(300):
        damaged = np.frombuffer(whole.getvalue(), np.uint8).copy()
        where = rng.integers(0, len(damaged), rng.integers(1, 8))
        damaged[where] = rng.integers(0, 256, len(where))
        path.write_bytes(damaged.tobytes())
        try:
            assert read_picture(path).mode == "RGB"
        except TrainError:
            refused += 1
    assert refused


def test_an_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(TrainError, match=r"moving\.webp: is animated, expected one picture"):
        read_picture(tmp_path / "moving.webp")


@pytest.mark.parametrize("side", [10_000, 20_000, 2**31 - 1])
def test_a_picture_of_absurd_size_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    whole = io.BytesIO()
    two_halves().save(whole, "PNG")
    header = b"IHDR" + struct.pack(">II", side, side) + whole.getvalue()[24:29]
    claims = whole.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole.getvalue()[33:]
    (tmp_path / "bomb.png").write_bytes(claims)
    with pytest.raises(TrainError, match=r"bomb\.png: has more than 89 million pixels"):
        read_picture(tmp_path / "bomb.png")


def test_another_kind_of_file_under_a_picture_s_name_is_refused(tmp_path: Path) -> None:
    two_halves().save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(TrainError, match=r"a\.png: cannot be read as PNG, JPEG or WebP \(not a picture\)"):
        read_picture(tmp_path / "a.png")


def test_all_pictures_that_cannot_be_used_are_named_in_one_line(tmp_path: Path) -> None:
    two_halves().resize((64, 64)).save(tmp_path / "good.png")
    Image.new("RGB", (2, 300)).save(tmp_path / "narrow.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "two\nlines.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(TrainError) as caught:
        check_pictures(find_pictures(tmp_path), 64)
    message = str(caught.value)
    assert message.startswith("3 of 4 pictures cannot be used, mend or remove them: ")
    assert "narrow.png: is 2x300 pixels, expected at least 8 on either side" in message
    assert "empty.png: cannot be read" in message
    assert r"two\nlines.png" in message
    assert "\n" not in message


def test_sizes_are_those_that_one_sees(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    two_halves().save(tmp_path / "turned.jpg", exif=exif)
    assert check_pictures([tmp_path / "turned.jpg"], 64) == [(20, 40)]


def test_a_folder_gives_its_pictures_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", ".hidden.png", "c.webp"):
        two_halves().save(tmp_path / name)
    for name in ("a.txt", "d.heic", "e.gif"):
        (tmp_path / name).touch()
    (tmp_path / "more.png").mkdir()
    assert [path.name for path in find_pictures(tmp_path)] == ["a.JPG", "b.png", "c.webp"]
    assert left_out(tmp_path) == ["d.heic", "e.gif"]


def test_a_link_to_what_is_gone_is_missed_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(TrainError, match=r"1 of 1 .*gone\.png: cannot be read .*no such file or directory"):
        check_pictures(find_pictures(tmp_path), 64)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="holds no picture, expected PNG, JPEG or WebP files"):
        find_pictures(tmp_path)
    with pytest.raises(TrainError, match="no such folder"):
        find_pictures(tmp_path / "nowhere")
