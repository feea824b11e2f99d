"""The tensor contract: what arrays ask for, what they may not say, and what pictures become."""

import io
import subprocess
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.hires import Hires
from mezzotint.engines.request import Request
from mezzotint.engines.start import Start
from mezzotint.engines.variation import Variation
from mezzotint.server.events import Picture, Preview, Progress, Timings
from mezzotint.server.kserve.tensor import Datatype
from mezzotint.server.kserve.tensors import INPUTS, OUTPUTS, picture_outputs, progress_outputs, read_inputs, tensors_of
from mezzotint.server.pictures import RAW, PictureOptions

PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
SPENT = Timings(1.0, 2.0, 3.0, 4.0, 10.0)


def text(value: str | bytes) -> np.ndarray:
    return np.array([value.encode() if isinstance(value, str) else value], object)


def picture(index: int = 0, data: bytes = PIXELS.tobytes(), kind: str = RAW, flagged: bool | None = None) -> Picture:
    latents = np.full((4, 1, 1), index, np.float32)
    return Picture(index, 7 + index, data, kind, 3, 2, "d", latents, SPENT, flagged)


def test_every_field_of_a_request_has_a_tensor_or_is_an_output() -> None:
    of_request = {field.name for field in fields(Request)} - {"return_latents"}  # asked for by the output LATENTS
    for group, kind in (("start", Start), ("variation", Variation), ("hires", Hires)):
        of_request = of_request - {group} | {field.name for field in fields(kind)}
    of_picture = {field.name for field in fields(PictureOptions)}
    assert {tensor.field for tensor in INPUTS} == of_request | of_picture
    assert len({tensor.name for tensor in (*INPUTS, *OUTPUTS)}) == len(INPUTS) + len(OUTPUTS)


def test_a_file_in_a_tensor_is_no_text() -> None:
    inputs = {"PROMPT": text("a cat"), "INIT_IMAGE": text(b"\x89PNG\xff"), "STRENGTH": np.array([0.3], np.float32)}
    asked = read_inputs(inputs | {"RESIZE_MODE": text("crop")}, (), decoupled=False)
    assert asked.request.start == Start(image=b"\x89PNG\xff", strength=0.3, resize_mode="crop")


def test_arrays_become_the_request_that_they_ask_for() -> None:
    noise = np.ones((1, 4, 8, 8), np.float32)
    inputs = {
        "PROMPT": text("ein Hütchen"),
        "NEGATIVE_PROMPT": np.array([["red"]], object),
        "SAMPLES": np.array([2], np.int32),
        "STEPS": np.array([[9]], np.int32),
        "GUIDANCE_SCALE": np.array([3.3], np.float32),
        "SEED": np.array([2**40], np.int64),
        "SCHEDULER": text("euler_a"),
        "CUSTOM_SIGMAS": np.array([9.1, 0.3], np.float32),
        "CACHE_SCHEDULE": np.array([0, 3], np.int32),
        "INIT_LATENTS": noise,
    }
    asked = read_inputs(inputs, (), decoupled=False)
    request = asked.request
    assert (request.prompt, request.negative_prompt, request.num_images, request.steps) == ("ein Hütchen", "red", 2, 9)
    assert (request.guidance, request.seed, request.sampler) == (3.3, 2**40, "euler_a")
    assert (request.custom_sigmas, request.cache_schedule) == ((9.1, 0.3), (0, 3))
    assert request.latents is noise
    assert asked.picture.format == RAW
    assert asked.outputs == {"IMAGES", "SEEDS", "FLAGGED", "TIMINGS_MS"}
    assert not asked.wants_progress


def test_what_is_left_out_takes_the_defaults_of_request() -> None:
    asked = read_inputs({"PROMPT": text("a cat")}, ["IMAGES"], decoupled=True)
    assert all(
        getattr(asked.request, field.name) == field.default for field in fields(Request) if field.name != "prompt"
    )
    assert not asked.wants_progress
    assert read_inputs({"PROMPT": text("a cat")}, (), decoupled=True).wants_progress


def test_files_are_written_in_the_format_that_is_asked_for_and_latents_come_by_name() -> None:
    inputs = {"PROMPT": text("a"), "IMAGE_FORMAT": text("jpg"), "QUALITY": np.array([70], np.int32)}
    asked = read_inputs(inputs, ["FILES", "LATENTS"], decoupled=False)
    assert (asked.picture, asked.request.return_latents) == (PictureOptions("jpeg", 70), True)
    assert read_inputs({"PROMPT": text("a")}, ["FILES"], decoupled=False).picture == PictureOptions()


@pytest.mark.parametrize(
    ("inputs", "outputs", "sentence"),
    [
        ({}, (), r"input 'PROMPT': is missing; send BYTES \[1\]"),
        ({"PROMPT": text(b"\xff")}, (), "input 'PROMPT': is not valid UTF-8"),
        ({"PROMPT": np.array([b"a", b"b"], object)}, (), r"input 'PROMPT': is object \[2\]; must be BYTES \[1\]"),
        ({"PROMPT": np.zeros((0,), object)}, (), r"input 'PROMPT': is object \[0\]; must be BYTES"),
        ({"STEPS": np.array([5], np.int64)}, (), r"input 'STEPS': is int64 \[1\]; must be INT32 \[1\]"),
        ({"STEPS": np.array([5, 6], np.int32)}, (), r"input 'STEPS': is int32 \[2\]"),
        ({"INIT_LATENTS": np.zeros(4, np.float32)}, (), r"input 'INIT_LATENTS': is float32 \[4\]; must be FP32 \[-1"),
        ({"IMAGE_FORMAT": text("raw")}, ["FILES"], "format='raw': must be one of png, jpeg, webp"),
        ({"QUALITY": np.array([0], np.int32)}, (), "quality=0: must be between 1 and 100"),
        ({"SCHEDULER": text("e" * 300)}, (), "sampler: has a length of 300; the limit is 256"),
        ({"CACHE_SCHEDULE": np.arange(5000, dtype=np.int32)}, (), "cache_schedule: has a length of 5000"),
        ({"FOO": text("a")}, (), "input 'FOO': is none of this model's; it has PROMPT, NEGATIVE_PROMPT"),
        ({"PREVIEW_EVERY": np.array([1], np.int32)}, (), "input 'PREVIEW_EVERY': is none of this model's"),
        ({}, ["STEP"], "output 'STEP': is none of this model's; it has IMAGES"),
    ],
)  # fmt: skip
def test_a_wrong_tensor_is_refused_in_one_sentence(
    inputs: dict[str, np.ndarray], outputs: list[str], sentence: str
) -> None:
    given = inputs if "missing" in sentence else {"PROMPT": text("a cat"), **inputs}
    with pytest.raises(InvalidRequest, match=sentence):
        read_inputs(given, outputs, decoupled=False)


def test_pictures_become_arrays_of_their_pixels_seeds_and_times() -> None:
    wanted = ["TIMINGS_MS", "IMAGES", "SEEDS", "FLAGGED", "LATENTS"]
    outputs = picture_outputs([picture(0), picture(1, flagged=True)], wanted)
    assert list(outputs) == ["IMAGES", "SEEDS", "FLAGGED", "TIMINGS_MS", "LATENTS"]
    np.testing.assert_array_equal(outputs["IMAGES"], [PIXELS, PIXELS])
    assert outputs["SEEDS"].tolist() == [7, 8]
    assert outputs["FLAGGED"].tolist() == [-1, 1]
    assert outputs["TIMINGS_MS"].tolist() == [[1, 2, 3, 4, 10]] * 2
    assert outputs["LATENTS"].shape == (2, 4, 1, 1)
    check_config(outputs)


def test_latents_are_there_where_each_picture_has_them() -> None:
    withheld = replace(picture(1, flagged=True), latents=None)
    for pictures in ([withheld], [picture(0), withheld]):
        assert list(picture_outputs(pictures, ["IMAGES", "LATENTS"])) == ["IMAGES"]


def test_beside_files_images_are_the_files_own_pixels() -> None:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "png")
    outputs = picture_outputs([picture(data=file.getvalue(), kind="png")], ["IMAGES", "FILES"])
    np.testing.assert_array_equal(outputs["IMAGES"][0], PIXELS)
    assert outputs["FILES"].tolist() == [file.getvalue()]
    check_config(outputs)


def test_a_step_becomes_arrays_and_a_preview_only_where_it_has_one() -> None:
    wanted = {"STEP", "IMAGE_INDEX", "FINISH_IN_MS", "PREVIEW"}
    plain = progress_outputs(Progress(1, 2, 9, None, 5.5), wanted)
    assert {name: array.tolist() for name, array in plain.items()} == {
        "IMAGE_INDEX": [1], "STEP": [2], "FINISH_IN_MS": [5.5],
    }  # fmt: skip
    seen = progress_outputs(Progress(1, 2, 9, Preview(b"jpeg", 8, 8), 5.5), wanted)
    assert seen["PREVIEW"].tolist() == [b"jpeg"]
    check_config(seen)


def check_config(outputs: dict[str, np.ndarray]) -> None:
    """Outputs are of the dtypes and shapes that a config.pbtxt promises."""
    promised = {tensor.name: tensor for tensor in OUTPUTS}
    for name, array in outputs.items():
        tensor = promised[name]
        assert array.dtype == tensor.datatype.dtype
        assert array.ndim == len(tensor.dims)
        assert all(dim in (-1, length) for dim, length in zip(tensor.dims, array.shape, strict=True))


def test_a_decoupled_model_has_what_the_other_has_and_its_progress() -> None:
    assert set(tensors_of(OUTPUTS, decoupled=False)) < set(tensors_of(OUTPUTS, decoupled=True))
    assert Datatype.BYTES.config_name == "TYPE_STRING"
    assert Datatype.FP32.config_name == "TYPE_FP32"


def test_the_contract_is_imported_without_grpc_and_protobuf() -> None:
    names = "{'grpc', 'google.protobuf', 'torch'}"
    code = f"import sys, mezzotint.server.kserve.tensors; print(sorted({names} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
