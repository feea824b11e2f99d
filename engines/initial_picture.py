"""Pictures that a request brings along: a file's bytes become pixels of the size that is painted.

Whatever a file says of itself is checked before its pixels are decoded. Imports Pillow and numpy.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.picture import FORMATS
from mezzotint.engines.start import ResizeMode

MAX_PICTURE_BYTES = 32 << 20
MAX_PICTURE_PIXELS = 4096 * 4096
"""Of a picture that is sent: decoded it takes four bytes each, whatever its file is compressed to."""

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_picture(field: str, data: bytes) -> Image.Image:
    """Return the picture of a PNG, JPEG or WebP file as RGB, turned as its EXIF says; of several the first.

    What is transparent is laid on white. ``field`` names it in errors.

    Raises:
        InvalidRequest: it is no such file, it is damaged, or too large.
    """
    if len(data) > MAX_PICTURE_BYTES:
        raise InvalidRequest(f"{field}: has {len(data)} bytes; the limit is {MAX_PICTURE_BYTES}, send a smaller file")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height <= MAX_PICTURE_PIXELS:
                return upright_rgb(picture)
    except _BOMBS:
        raise InvalidRequest(f"{field}: has more than {MAX_PICTURE_PIXELS} pixels; send a smaller one") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes them
        raise InvalidRequest(
            f"{field}: its {len(data)} bytes are no whole {', '.join(FORMATS)} file ({reason_of(error)}); send one"
        ) from None
    raise InvalidRequest(f"{field}: is {width}x{height}, more than {MAX_PICTURE_PIXELS} pixels; send a smaller one")


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Return a picture as RGB, turned as its EXIF says; what is transparent lies on white, 16 bits of grey become 8."""
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # 16 bits, which Pillow's own conversion cuts off at 255
        upright = Image.fromarray((np.asarray(upright, np.uint32) >> 8).astype(np.uint8))
    if upright.has_transparency_data:
        drawn = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn)
    return upright.convert("RGB")


def resized(picture: Image.Image, size: tuple[int, int], mode: ResizeMode) -> Image.Image:
    """Return a picture of ``size``, (height, width) in pixels; one that has it already is given back as it is."""
    height, width = size
    if picture.size == (width, height):
        return picture
    across, down = width / picture.width, height / picture.height
    match mode:
        case ResizeMode.STRETCH:
            return picture.resize((width, height), Image.Resampling.LANCZOS)
        case ResizeMode.CROP:
            scale = max(across, down)
            left, top = (picture.width - width / scale) / 2, (picture.height - height / scale) / 2
            box = (max(0.0, left), max(0.0, top), picture.width - max(0.0, left), picture.height - max(0.0, top))
            return picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
        case ResizeMode.FILL:
            scale = min(across, down)
            inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            return _with_edges_repeated(picture.resize(inner, Image.Resampling.LANCZOS), width, height)


def _with_edges_repeated(picture: Image.Image, width: int, height: int) -> Image.Image:
    pixels = np.asarray(picture)
    missing = (height - pixels.shape[0], width - pixels.shape[1])
    margins = [(over // 2, over - over // 2) for over in missing] + [(0, 0)] * (pixels.ndim - 2)
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))


def grey(picture: Image.Image) -> npt.NDArray[np.uint8]:
    """Return the brightness of a picture, uint8 [height, width]."""
    return np.asarray(picture.convert("L"))


def reason_of(error: Exception) -> str:
    """Return in a few words why Pillow could not read a picture."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    first = str(error).partition("\n")[0]
    return "not a picture" if not first or "cannot identify" in first else first.lower()
