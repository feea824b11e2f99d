"""Picture files: pixels to PNG, JPEG or WebP, with how they were made in A1111's ``parameters`` text.

The same input gives the same bytes: no time and no request id goes in. Imports Pillow, numpy and the request alone.
"""

import io
import json
import re
from functools import lru_cache
from importlib import metadata

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL

FORMATS = ("png", "jpeg", "webp")
_WITH_EXIF = ("jpeg", "webp")

# At 512x512, zlib level 1 takes less than half of level 6's time for a file about a tenth larger.
_PNG_LEVEL = 1
_KEY = "parameters"
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286
_UNICODE = b"UNICODE\0"
_MAX_EXIF_BYTES = 65_000  # a JPEG segment holds 65,533 bytes, with EXIF's own tables in it
_ADDED_BYTES = 2_000  # what a picture may add to its request's text: names of samplers, bundles and embeddings
_NEGATIVE = "Negative prompt:"
_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
_FEWEST_SETTINGS = 3  # a last line with fewer is part of the prompt, as A1111 reads it


def parameters_text(
    request: Request,
    *,
    seed: int,
    sampler_label: str,
    schedule_type: str,
    size: tuple[int, int],
    model: str,
    digest: str,
    precision: str,
    safety: str = "",
    subseed: int = 0,
    embeddings: str = "",
    num_tiles: int = 0,
) -> str:
    """Return how one picture was made, as A1111's web UI writes and reads it.

    Args:
        request: what was asked for.
        seed: the picture's own seed.
        sampler_label: the sampler's name in A1111.
        schedule_type: its noise levels there; empty where they are as trained.
        size: (height, width) in pixels, before hires fix enlarges it.
        model: the bundle's name.
        digest: the bundle's digest; its first 12 digits are written.
        precision: the UNet's.
        safety: what was done with a flagged picture.
        subseed: the picture's own, where it is a variation.
        embeddings: the textual-inversion files of its prompts, each with its name and digest.
        num_tiles: in how many tiles it was decoded; 0 is as a whole.
    """
    settings = {
        "Steps": str(request.steps),
        "Sampler": sampler_label,
        "Schedule type": schedule_type,
        "CFG scale": _number(request.guidance),
        "Seed": str(seed),
        "Size": f"{size[1]}x{size[0]}",
        "Model": model,
        **_variation(request, subseed),
        **_start(request),
        **_hires(request),
        **_other_options(request, num_tiles),
        "Safety checker": safety,
        "TI hashes": embeddings,
        "Engine": digest[:12],
        "Precision": precision,
        "Version": _version(),
    }
    prompt, negative_prompt = _prompts(request)
    negative = f"\n{_NEGATIVE} {negative_prompt}" if negative_prompt else ""
    last_line = ", ".join(f"{key}: {_quote(value)}" for key, value in settings.items() if value)
    return f"{prompt}{negative}\n{last_line}".strip()


def check_parameters(request: Request, format: str) -> None:  # noqa: A002 - as below
    """Refuse a request whose ``parameters_text`` is longer than its pictures' format holds, before they are painted.

    Raises:
        InvalidRequest: it is; names the field that takes the most of it.
    """
    if format not in _WITH_EXIF:
        return
    text = parameters_text(
        request, seed=0, sampler_label="", schedule_type="", size=(0, 0), model="", digest="", precision=""
    )
    if (num_bytes := len(_comment(text)) + _ADDED_BYTES) > _MAX_EXIF_BYTES:
        prompt, negative_prompt = _prompts(request)
        long = {"prompt": prompt, "negative_prompt": negative_prompt, "cache_schedule": _step_cache(request)}
        long["custom_sigmas"] = _sigmas(request)
        raise _too_long(max(long, key=lambda field: len(long[field])), num_bytes)


def parse_parameters(text: str) -> dict[str, str]:
    """Read a ``parameters`` text: ``Prompt``, ``Negative prompt`` and every setting by its name.

    As in A1111 a line of the prompt that begins with "Negative prompt:" begins the negative prompt.
    """
    *lines, last_line = text.strip().split("\n")
    settings = _SETTING.findall(last_line)
    if len(settings) < _FEWEST_SETTINGS:
        lines, settings = [*lines, last_line], []
    first = next((i for i, line in enumerate(lines) if line.startswith(_NEGATIVE)), len(lines))
    prompts = {
        "Prompt": "\n".join(lines[:first]),
        "Negative prompt": "\n".join(lines[first:]).removeprefix(_NEGATIVE).removeprefix(" "),
    }
    return prompts | {key: _unquote(value) for key, value in settings}


def check_format(name: str) -> str:
    """Return the picture format of a name or of a file's suffix. Raises InvalidRequest."""
    found = name.lower().removeprefix(".").replace("jpg", "jpeg")
    if found not in FORMATS:
        raise InvalidRequest(f"format={name!r}: must be one of {', '.join(FORMATS)}")
    return found


def encode_picture(
    pixels: npt.NDArray[np.uint8],
    *,
    format: str = "png",  # noqa: A002 - the name that Pillow and the contract use
    quality: int = 90,
    parameters: str = "",
) -> bytes:
    """Encode uint8 [H, W, 3] RGB as a picture file.

    ``parameters`` goes where A1111 puts it: PNG's ``parameters`` text chunk, elsewhere EXIF's UserComment as
    big-endian UTF-16.

    Raises:
        InvalidRequest: the format is unknown, ``quality`` (of JPEG and WebP) is not 1 to 100, or the text is longer
            than a JPEG can hold.
    """
    kind = check_format(format)
    if not 1 <= quality <= 100:
        raise InvalidRequest(f"quality={quality}: must be between 1 and 100; 90 is usual")
    picture, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if kind == "png":
        chunks = PngImagePlugin.PngInfo()
        if parameters:
            chunks.add_text(_KEY, parameters)  # an iTXt chunk where Latin-1 does not do
        picture.save(file, "png", pnginfo=chunks, compress_level=_PNG_LEVEL)
    else:
        picture.save(file, kind, quality=quality, exif=_exif(parameters) if parameters else b"")
    return file.getvalue()


def read_parameters(data: bytes) -> str:
    """Return the ``parameters`` text of a picture file, or "". Raises InvalidRequest where it is none, or damaged."""
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
        if picture.format == "PNG":
            return str(picture.info.get(_KEY, ""))
        comment = picture.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT, b"")
    except Exception:  # Pillow lets through whatever its parsers meet in a damaged file
        raise InvalidRequest(f"picture: its {len(data)} bytes are none of {', '.join(FORMATS)}; send one") from None
    is_text = isinstance(comment, bytes) and comment.startswith(_UNICODE)
    return comment[len(_UNICODE) :].decode("utf-16-be", "replace") if is_text else ""


def _exif(parameters: str) -> bytes:
    comment = _comment(parameters)
    if len(comment) > _MAX_EXIF_BYTES:
        raise _too_long("parameters", len(comment))
    exif = Image.Exif()
    exif.endian = ">"  # as piexif writes it; some readers take the text's byte order from here
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = comment
    return exif.tobytes()


def _comment(parameters: str) -> bytes:
    return _UNICODE + parameters.encode("utf-16-be")


def _too_long(field: str, num_bytes: int) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: how the picture was made takes {num_bytes} bytes in its EXIF, which holds {_MAX_EXIF_BYTES}; "
        "shorten it, or ask for png"
    )


def _prompts(request: Request) -> tuple[str, str]:
    """Return the prompts that a picture is painted of: none where states stand in their place."""
    return (
        request.prompt if request.prompt_states is None else "",
        request.negative_prompt if request.negative_prompt_states is None else "",
    )


def _number(value: float) -> str:
    return np.format_float_positional(value, trim="-")


def _variation(request: Request, subseed: int) -> dict[str, str]:
    strength = request.variation.subseed_strength
    if not strength:
        return {}
    return {"Variation seed": str(subseed), "Variation seed strength": _number(strength)}


def _start(request: Request) -> dict[str, str]:
    start = request.start
    return {
        "Denoising strength": _number(start.strength) if start.is_given else "",
        "Mask blur": _number(start.mask_blur) if start.mask else "",
    }


def _hires(request: Request) -> dict[str, str]:
    hires = request.hires
    if not hires:
        return {}
    return {
        "Denoising strength": _number(hires.hires_strength),
        "Hires upscale": _number(hires.hires_scale),
        "Hires steps": str(hires.hires_steps) if hires.hires_steps else "",
        "Hires upscaler": hires.upscaler.capitalize(),
    }


def _other_options(request: Request, num_tiles: int) -> dict[str, str]:
    return {
        "Resize mode": request.start.resize_mode.capitalize(),
        "CFG Rescale": _number(request.guidance_rescale) if request.guidance_rescale else "",
        "Guidance interval": _interval(request),
        "Step cache": _step_cache(request),
        "Decode tiles": str(num_tiles) if num_tiles else "",
        "Decoder": request.decoder if request.decoder != FULL else "",
        "Clip skip": str(request.clip_skip) if request.clip_skip > 1 else "",
        "Eta DDIM": _number(request.eta) if request.eta else "",
        "Spacing": request.spacing,
        "Sigmas": _sigmas(request),
    }


def _sigmas(request: Request) -> str:
    return " ".join(map(_number, request.custom_sigmas))


def _interval(request: Request) -> str:
    start, end = request.guidance_start, request.guidance_end
    return "" if (start, end) == (0.0, 1.0) else f"{_number(start)}-{_number(end)}"


def _step_cache(request: Request) -> str:
    if request.cache_schedule:
        return "at " + " ".join(map(str, request.cache_schedule))
    return str(request.cache_interval) if request.caches_steps else ""


def _quote(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if set(value) & set(',\n:"') or value != value.strip() else value


def _unquote(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


@lru_cache(maxsize=1)
def _version() -> str:
    try:
        return f"mezzotint {metadata.version('mezzotint')}"
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "mezzotint"
