"""Pictures that come from outside: read as they are meant, resized by name, refused before they take memory."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mezzotint.engines import initial_picture
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.initial_picture import grey, read_picture, resized
from mezzotint.engines.start import ResizeMode

ORIENTATION = 0x0112


def pixels(height: int = 12, width: int = 20, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def file_of(array: Any, kind: str = "png", **options: Any) -> bytes:
    file = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(file, kind, **options)
    return file.getvalue()


def claiming(width: int, height: int) -> bytes:
    """A PNG file of a few bytes whose header says that it is large."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    row = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, row, b"IEND")
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def test_pixels_of_a_file_without_loss_come_as_they_are() -> None:
    for data in (file_of(pixels()), file_of(pixels(), "webp", lossless=True)):
        assert np.array_equal(read_picture("image", data), pixels())


def test_a_jpeg_is_turned_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # a quarter turn clockwise
    upright, turned = file_of(pixels(), "jpeg", quality=95), file_of(pixels(), "jpeg", quality=95, exif=exif)
    straight = np.asarray(read_picture("image", upright))
    assert np.array_equal(read_picture("image", turned), np.rot90(straight, -1))


def test_what_is_transparent_is_laid_on_white() -> None:
    drawn = pixels(channels=4)
    drawn[..., 3] = 0
    drawn[:6, :, 3] = 255
    read = np.asarray(read_picture("image", file_of(drawn)))
    assert np.array_equal(read[:6], drawn[:6, :, :3])
    assert (read[6:] == 255).all()
    indexed = Image.fromarray(np.zeros((4, 4), np.uint8), "P")
    assert (np.asarray(read_picture("image", file_of(indexed, transparency=0))) == 255).all()


def test_greys_of_one_and_of_sixteen_bits_keep_their_brightness() -> None:
    wide = np.linspace(0, 65535, 240).reshape(12, 20).astype(np.uint16)
    assert np.array_equal(grey(read_picture("image", file_of(wide))), wide >> 8)
    white = Image.new("1", (20, 12), 1)
    assert (grey(read_picture("mask", file_of(white))) == 255).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"a shark", file_of(pixels())[:60], file_of(pixels(), "jpeg")[:200], file_of(pixels(), "bmp")],
    ids=["nothing", "text", "half a PNG", "half a JPEG", "another format"],
)
def test_what_is_no_whole_picture_is_one_sentence(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^image: its \d+ bytes are no whole png, jpeg, webp file .*; send one$"):
        read_picture("image", data)


@pytest.mark.parametrize("size", [(4097, 4096), (12_000, 12_000), (60_000, 60_000)])
def test_a_decompression_bomb_is_refused_by_what_its_header_says(size: tuple[int, int]) -> None:
    data = claiming(*size)
    assert len(data) < 100
    with pytest.raises(InvalidRequest, match=r"^mask: .*more than 16777216 pixels; send a smaller one$"):
        read_picture("mask", data)


def test_a_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(initial_picture, "MAX_PICTURE_BYTES", 100)
    with pytest.raises(InvalidRequest, match=r"^image: has \d+ bytes; the limit is 100, send a smaller file$"):
        read_picture("image", file_of(pixels()))


@pytest.mark.parametrize("mode", ResizeMode)
def test_a_picture_of_the_right_size_is_left_alone(mode: ResizeMode) -> None:
    picture = Image.fromarray(pixels())
    assert resized(picture, (12, 20), mode) is picture


@pytest.mark.parametrize("mode", ResizeMode)
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (48, 16), (7, 5)])
def test_every_mode_gives_the_size_that_is_painted(mode: ResizeMode, size: tuple[int, int]) -> None:
    assert np.asarray(resized(Image.fromarray(pixels()), size, mode)).shape == (*size, 3)


def test_stretching_is_pillow_s_lanczos() -> None:
    picture = Image.fromarray(pixels())
    assert resized(picture, (30, 30), ResizeMode.STRETCH) == picture.resize((30, 30), Image.Resampling.LANCZOS)


def test_cropping_cuts_the_longer_side_alike_on_both_ends() -> None:
    picture = Image.fromarray(pixels(12, 20))
    cut = resized(picture, (12, 12), ResizeMode.CROP)
    assert np.array_equal(cut, pixels(12, 20)[:, 4:16])


def test_filling_keeps_all_of_it_and_repeats_its_edges() -> None:
    filled = np.asarray(resized(Image.fromarray(pixels(12, 20)), (20, 20), ResizeMode.FILL))
    assert np.array_equal(filled[4:16], pixels(12, 20))
    assert (filled[:4] == filled[4]).all()
    assert (filled[16:] == filled[15]).all()
