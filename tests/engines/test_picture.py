"""Picture files: what A1111 writes into them comes back, and the same input gives the same bytes."""

import io
import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.picture import (
    FORMATS,
    check_format,
    check_parameters,
    encode_picture,
    parameters_text,
    parse_parameters,
    read_parameters,
)
from mezzotint.engines.request import Request

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 32, 3), dtype=np.uint8)
ODD_PROMPT = 'a 🦈, "big": yes\nand a 🐳\\ on a blue background'


def text_of(request: Request, **changes: object) -> str:
    values = {
        "seed": 7,
        "sampler_label": "DPM++ 2M",
        "schedule_type": "",
        "size": (64, 128),
        "model": "emoji",
        "digest": "0123456789abcdef" * 4,
        "precision": "fp32",
    }
    return parameters_text(request, **(values | changes))  # type: ignore[arg-type]


def test_the_text_is_the_one_that_a1111_writes() -> None:
    request = Request(prompt="a shark", negative_prompt="blur", guidance=4.0, sampler="dpmpp_2m")
    prompt, negative, settings = text_of(request, schedule_type="Karras").split("\n")
    assert (prompt, negative) == ("a shark", "Negative prompt: blur")
    assert settings.startswith(
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 4, Seed: 7, Size: 128x64, Model: emoji, "
        "Engine: 0123456789ab, Precision: fp32, Version: mezzotint"
    )


def test_what_makes_fewer_evaluations_is_written_where_it_is_set() -> None:
    plain = text_of(Request(prompt="x"))
    assert text_of(Request(prompt="x", decoder="full")) == plain
    request = Request(prompt="x", guidance_start=0.2, guidance_end=0.8, cache_interval=3, decoder="tiny")
    assert ", Guidance interval: 0.2-0.8, Step cache: 3, Decoder: tiny, Engine:" in text_of(request)
    assert text_of(request).replace("Guidance interval: 0.2-0.8, Step cache: 3, Decoder: tiny, ", "") == plain
    settings = parse_parameters(text_of(Request(prompt="x", guidance_end=0.5, cache_schedule=(0, 4, 9))))
    assert (settings["Guidance interval"], settings["Step cache"]) == ("0-0.5", "at 0 4 9")


def test_noise_levels_of_the_requests_own_are_written() -> None:
    assert ", Sigmas: 14.6 0.1, Engine:" in text_of(Request(prompt="x", steps=2, custom_sigmas=(14.6, 0.1)))


def test_an_earlier_layer_of_the_text_encoder_is_written_as_a1111_does() -> None:
    plain = text_of(Request(prompt="x"))
    assert text_of(Request(prompt="x", clip_skip=1)) == plain
    assert parse_parameters(text_of(Request(prompt="(x:1.2)", clip_skip=2)))["Clip skip"] == "2"


@pytest.mark.parametrize(
    ("guidance", "written"), [(4.0, "4"), (7.1, "7.1"), (1e-7, "0.0000001"), (0.1 + 0.2, str(0.1 + 0.2))]
)
def test_guidance_is_written_as_it_was_typed(guidance: float, written: str) -> None:
    assert f"CFG scale: {written}," in text_of(Request(prompt="x", guidance=guidance))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("prompt", ["a shark", ODD_PROMPT, "naïve café", "", "Steps: 1, Seed: 2"])
def test_parameters_come_back_from_every_format(format_: str, prompt: str) -> None:
    request = Request(prompt=prompt, negative_prompt="blur, ü\n🌫")
    text = text_of(request, model='a, "b"\n: c')
    read = read_parameters(encode_picture(PIXELS, format=format_, parameters=text))
    assert read == text
    parsed = parse_parameters(read)
    assert parsed["Prompt"] == prompt
    assert parsed["Negative prompt"] == "blur, ü\n🌫"
    assert parsed["Model"] == 'a, "b"\n: c'
    assert (parsed["Seed"], parsed["Size"], parsed["Steps"]) == ("7", "128x64", "25")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=80), st.text(st.characters(codec="utf-8")))
def test_any_prompt_of_one_line_and_any_model_name_come_back(prompt: str, model: str) -> None:
    parsed = parse_parameters(text_of(Request(prompt=prompt.strip()), model=model))
    if not prompt.strip().startswith("Negative prompt:"):
        assert parsed["Prompt"] == prompt.strip()
    assert parsed.get("Model", "") == model


@pytest.mark.parametrize("format_", FORMATS)
def test_same_input_gives_same_bytes_and_no_text_means_none(format_: str) -> None:
    data = encode_picture(PIXELS, format=format_, parameters="a\nSteps: 1")
    assert data == encode_picture(PIXELS, format=format_, parameters="a\nSteps: 1")
    assert read_parameters(encode_picture(PIXELS, format=format_)) == ""
    assert Image.open(io.BytesIO(data)).size == (32, 48)


def test_png_keeps_every_pixel_and_latin_1_is_plain_text() -> None:
    data = encode_picture(PIXELS, parameters="café\nSteps: 1")
    assert (np.asarray(Image.open(io.BytesIO(data))) == PIXELS).all()
    assert b"tEXtparameters\0caf\xe9" in data
    assert b"iTXtparameters\0" in encode_picture(PIXELS, parameters="🦈")


def test_exif_is_what_piexif_writes() -> None:
    data = encode_picture(PIXELS, format="jpeg", parameters="ü")
    assert b"Exif\0\0MM\0*" in data
    assert b"UNICODE\0\x00\xfc" in data


@pytest.mark.parametrize(("name", "format_"), [("PNG", "png"), (".jpg", "jpeg"), ("jpeg", "jpeg"), ("webp", "webp")])
def test_a_suffix_names_a_format(name: str, format_: str) -> None:
    assert check_format(name) == format_


def test_what_cannot_be_written_is_one_sentence() -> None:
    with pytest.raises(InvalidRequest, match=r"^format='gif': must be one of png, jpeg, webp$"):
        encode_picture(PIXELS, format="gif")
    with pytest.raises(InvalidRequest, match=r"^quality=0: must be between 1 and 100"):
        encode_picture(PIXELS, format="jpeg", quality=0)
    with pytest.raises(InvalidRequest, match=r"EXIF, which holds 65000; shorten it, or ask for png$"):
        encode_picture(PIXELS, format="jpeg", parameters="x" * 40_000)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("prompt", {"prompt": "x" * 16_384, "negative_prompt": "y" * 16_000}),
        ("negative_prompt", {"prompt": "x" * 16_000, "negative_prompt": "y" * 16_384}),
        ("custom_sigmas", {"prompt": "x" * 16_384, "custom_sigmas": tuple(np.geomspace(14, 0.1, 1000).tolist())}),
    ],
)
def test_a_request_that_exif_cannot_hold_is_refused_by_its_longest_field(field: str, values: dict[str, Any]) -> None:
    request = Request(**values)
    for format_ in ("jpeg", "webp"):
        with pytest.raises(InvalidRequest, match=rf"^{field}: how the picture was made takes \d+ bytes in its EXIF"):
            check_parameters(request, format_)
    check_parameters(request, "png")
    check_parameters(request, "raw")


@pytest.mark.parametrize("length", [15_000, 15_500, 15_800])
def test_what_passes_can_be_written(length: int) -> None:
    request = Request(prompt="x" * length, negative_prompt="y" * length)
    try:
        check_parameters(request, "jpeg")
    except InvalidRequest:
        assert length > 15_000
    else:
        text = text_of(request, model="m" * 200, embeddings="a: 0123456789ab, " * 20)
        assert read_parameters(encode_picture(PIXELS, format="jpeg", parameters=text)) == text


def test_prompts_that_states_stand_in_the_place_of_are_not_written() -> None:
    states = np.zeros((8, 4), np.float32)
    request = Request(prompt="a cat", negative_prompt="a dog", prompt_states=states)
    assert parse_parameters(text_of(request))["Prompt"] == ""
    assert parse_parameters(text_of(request))["Negative prompt"] == "a dog"
    assert "a dog" not in text_of(replace(request, negative_prompt_states=states))


def too_large() -> bytes:
    """The first bytes of a PNG that says that it has 30,000 x 30,000 pixels."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + bytes(12)


def with_exif(exif: bytes, format_: str = "jpeg") -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, format_, exif=exif)
    return file.getvalue()


def commented(comment: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    return exif.tobytes()


def test_a_comment_of_another_type_is_no_text() -> None:
    assert read_parameters(with_exif(commented("typed as ASCII"))) == ""


@pytest.mark.parametrize(
    "data", [b"", b"text", encode_picture(PIXELS)[:20], too_large(), with_exif(b"no TIFF header", "webp")]
)
def test_what_is_no_picture_is_one_sentence(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"bytes are none of png, jpeg, webp"):
        read_parameters(data)
