"""The tensors of a bundle as a Triton model: their names, and how they become a request and events become them.

The one contract for the KServe service here and for a model of Triton's python backend, which imports this module
alone: it knows numpy and our own words, neither gRPC nor protobuf. So a model is used, whoever carries its arrays:

    asked = read_inputs({"PROMPT": np.array([b"a cat"], object)}, ["IMAGES"], decoupled=False)
    core.submit(asked.request, picture=asked.picture, request_id=..., on_event=...)
    outputs = picture_outputs(pictures, asked.outputs)  # of the Picture events: {"IMAGES": uint8 [n, h, w, 3]}

Where the model is decoupled, each Progress event is a response by ``progress_outputs`` and each Picture one by
``picture_outputs``. ``INPUTS``, ``OUTPUTS`` and the ``Tensor``s in them are what a ``config.pbtxt`` says, with
``max_batch_size: 0``. BYTES are numpy arrays of dtype object that hold ``bytes``.
"""

import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.picture import check_format
from mezzotint.engines.request import Request, request_of
from mezzotint.server.events import Picture, Progress
from mezzotint.server.kserve.tensor import Datatype, Tensor
from mezzotint.server.limits import check_length, check_lengths
from mezzotint.server.pictures import RAW, PictureOptions

Array: TypeAlias = npt.NDArray[Any]

STREAM = "_stream"
"""What is added to a bundle's name for the model that streams its progress."""


INPUTS = (
    Tensor("PROMPT", Datatype.BYTES, field="prompt", optional=False),
    Tensor("NEGATIVE_PROMPT", Datatype.BYTES, field="negative_prompt"),
    Tensor("SAMPLES", Datatype.INT32, field="num_images"),
    Tensor("STEPS", Datatype.INT32, field="steps"),
    Tensor("GUIDANCE_SCALE", Datatype.FP32, field="guidance"),
    Tensor("SEED", Datatype.INT64, field="seed"),
    Tensor("SUBSEED", Datatype.INT64, field="subseed"),
    Tensor("SUBSEED_STRENGTH", Datatype.FP32, field="subseed_strength"),
    Tensor("SCHEDULER", Datatype.BYTES, field="sampler"),
    Tensor("HEIGHT", Datatype.INT32, field="height"),
    Tensor("WIDTH", Datatype.INT32, field="width"),
    Tensor("SIGMAS", Datatype.BYTES, field="sigmas"),
    Tensor("CUSTOM_SIGMAS", Datatype.FP32, (-1,), field="custom_sigmas"),
    Tensor("SPACING", Datatype.BYTES, field="spacing"),
    Tensor("ETA", Datatype.FP32, field="eta"),
    Tensor("GUIDANCE_START", Datatype.FP32, field="guidance_start"),
    Tensor("GUIDANCE_END", Datatype.FP32, field="guidance_end"),
    Tensor("GUIDANCE_RESCALE", Datatype.FP32, field="guidance_rescale"),
    Tensor("CACHE_INTERVAL", Datatype.INT32, field="cache_interval"),
    Tensor("CACHE_SCHEDULE", Datatype.INT32, (-1,), field="cache_schedule"),
    Tensor("DECODER", Datatype.BYTES, field="decoder"),
    Tensor("CLIP_SKIP", Datatype.INT32, field="clip_skip"),
    Tensor("HIRES_SCALE", Datatype.FP32, field="hires_scale"),
    Tensor("HIRES_STEPS", Datatype.INT32, field="hires_steps"),
    Tensor("HIRES_STRENGTH", Datatype.FP32, field="hires_strength"),
    Tensor("HIRES_UPSCALER", Datatype.BYTES, field="hires_upscaler"),
    Tensor("INIT_LATENTS", Datatype.FP32, (-1, -1, -1, -1), field="latents"),
    Tensor("INIT_IMAGE", Datatype.BYTES, field="image", is_file=True),
    Tensor("STRENGTH", Datatype.FP32, field="strength"),
    Tensor("MASK", Datatype.BYTES, field="mask", is_file=True),
    Tensor("MASK_BLUR", Datatype.FP32, field="mask_blur"),
    Tensor("RESIZE_MODE", Datatype.BYTES, field="resize_mode"),
    Tensor("PROMPT_STATES", Datatype.FP32, (-1, -1), field="prompt_states"),
    Tensor("NEGATIVE_PROMPT_STATES", Datatype.FP32, (-1, -1), field="negative_prompt_states"),
    Tensor("IMAGE_FORMAT", Datatype.BYTES, field="format"),
    Tensor("QUALITY", Datatype.INT32, field="quality"),
    Tensor("PREVIEW_EVERY", Datatype.INT32, field="preview_every", streamed=True),
)

OUTPUTS = (
    Tensor("IMAGES", Datatype.UINT8, (-1, -1, -1, 3), optional=False),
    Tensor("FILES", Datatype.BYTES, (-1,)),
    Tensor("SEEDS", Datatype.INT64, (-1,), optional=False),
    Tensor("FLAGGED", Datatype.INT32, (-1,), optional=False),
    Tensor("TIMINGS_MS", Datatype.FP32, (-1, 5), optional=False),
    Tensor("LATENTS", Datatype.FP32, (-1, -1, -1, -1)),
    Tensor("IMAGE_INDEX", Datatype.INT32, optional=False, streamed=True),
    Tensor("STEP", Datatype.INT32, optional=False, streamed=True),
    Tensor("FINISH_IN_MS", Datatype.FP32, optional=False, streamed=True),
    Tensor("PREVIEW", Datatype.BYTES, optional=False, streamed=True),
)

_PROGRESS = frozenset(("STEP", "FINISH_IN_MS", "PREVIEW"))
_OF_PICTURE = frozenset(field.name for field in fields(PictureOptions))


def tensors_of(tensors: Sequence[Tensor], *, decoupled: bool) -> tuple[Tensor, ...]:
    """Return those of the tensors that a model has: a decoupled one has all of them."""
    return tuple(tensor for tensor in tensors if decoupled or not tensor.streamed)


_BY_NAME = {
    decoupled: tuple(
        {tensor.name: tensor for tensor in tensors_of(some, decoupled=decoupled)} for some in (INPUTS, OUTPUTS)
    )
    for decoupled in (False, True)
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What the tensors of a request ask for.

    Attributes:
        outputs: the names of the outputs that are wanted.
    """

    request: Request
    picture: PictureOptions
    outputs: frozenset[str]

    @property
    def wants_progress(self) -> bool:
        """Whether steps are to be told and not pictures alone."""
        return not self.outputs.isdisjoint(_PROGRESS)


def input_tensor(name: str, *, decoupled: bool) -> Tensor:
    """Return the input of a name. Raises InvalidRequest."""
    inputs, _ = _BY_NAME[decoupled]
    if name not in inputs:
        raise InvalidRequest(f"input {name[:80]!r}: is none of this model's; it has {', '.join(inputs)}")
    return inputs[name]


def read_inputs(inputs: Mapping[str, Array], outputs: Collection[str], *, decoupled: bool) -> Asked:
    """Return what a request's arrays ask for; its values are checked where every request's are.

    Args:
        inputs: its arrays by name; those that are left out take the defaults of ``Request``.
        outputs: the names of the outputs that it wants; none is all but those that come only by name.
        decoupled: whether it is for the model that streams.

    Raises:
        InvalidRequest: a name, a dtype or a shape is not the model's, the prompt is missing, or text is no UTF-8.
    """
    known, offered = _BY_NAME[decoupled]
    for name, tensor in known.items():
        if not tensor.optional and name not in inputs:
            raise InvalidRequest(f"input {name!r}: is missing; send {tensor}")
    for name in outputs:
        if name not in offered:
            raise InvalidRequest(f"output {name[:80]!r}: is none of this model's; it has {', '.join(offered)}")
    wanted = frozenset(outputs or (name for name, tensor in offered.items() if not tensor.optional))
    values = {}
    for name, array in inputs.items():
        tensor = input_tensor(name, decoupled=decoupled)
        values[tensor.field] = _value(tensor, array)
    picture = {field: values.pop(field) for field in _OF_PICTURE & values.keys()}
    picture["format"] = check_format(picture.get("format", PictureOptions().format))
    options = PictureOptions(**picture)
    if "FILES" not in wanted:
        options = replace(options, format=RAW)
    request = request_of(values | {"return_latents": "LATENTS" in wanted})
    check_lengths(request)
    return Asked(request, options, wanted)


def picture_outputs(pictures: Sequence[Picture], wanted: Collection[str]) -> dict[str, Array]:
    """Return the wanted outputs of some pictures of one request, in the order that ``OUTPUTS`` has.

    IMAGES are uint8 [n, height, width, 3], TIMINGS_MS queue, encode, denoise, decode and total in milliseconds, FLAGGED
    1, 0, or -1 where no safety checker looked. LATENTS are there where each picture has them: one that was flagged and
    is not shown has none.
    """
    made: dict[str, Array] = {"IMAGE_INDEX": np.array([picture.image_index for picture in pictures], np.int32)}
    made["SEEDS"] = np.array([picture.seed for picture in pictures], np.int64)
    made["FLAGGED"] = np.array([-1 if p.flagged is None else int(p.flagged) for p in pictures], np.int32)
    spent = [picture.timings for picture in pictures]
    made["TIMINGS_MS"] = np.array(
        [(t.queue_ms, t.encode_ms, t.denoise_ms, t.decode_ms, t.total_ms) for t in spent], np.float32
    )
    if "IMAGES" in wanted:
        made["IMAGES"] = np.stack([_pixels(picture) for picture in pictures])
    if "FILES" in wanted:
        made["FILES"] = _bytes_array([picture.data for picture in pictures])
    latents = [picture.latents for picture in pictures if picture.latents is not None]
    if "LATENTS" in wanted and len(latents) == len(pictures):
        made["LATENTS"] = np.stack(latents)
    return _ordered(made, wanted)


def progress_outputs(progress: Progress, wanted: Collection[str]) -> dict[str, Array]:
    """Return the wanted outputs of a step; PREVIEW, a JPEG file, is there only where the step has one."""
    made: dict[str, Array] = {
        "IMAGE_INDEX": np.array([progress.image_index], np.int32),
        "STEP": np.array([progress.step], np.int32),
        "FINISH_IN_MS": np.array([progress.finish_in_ms], np.float32),
    }
    if progress.preview is not None:
        made["PREVIEW"] = _bytes_array([progress.preview.data])
    return _ordered(made, wanted)


def _ordered(made: Mapping[str, Array], wanted: Collection[str]) -> dict[str, Array]:
    names = (tensor.name for tensor in OUTPUTS)
    return {name: made[name] for name in names if name in wanted and name in made}


def _value(tensor: Tensor, array: Array) -> Any:
    """Return an array as the value of its field. Raises InvalidRequest."""
    datatype, dims = tensor.datatype, tensor.dims
    if array.dtype != datatype.dtype or not tensor.fits(array.shape):
        raise InvalidRequest(f"input {tensor.name!r}: is {array.dtype} {list(array.shape)}; must be {tensor}")
    if len(dims) > 1:
        return array
    if dims != (1,):
        check_length(tensor.field, array.size)
    if tensor.is_file:
        return bytes(array.ravel()[0])
    values = tuple(_scalar(tensor.name, datatype, value) for value in array.ravel())
    return values[0] if dims == (1,) else values


def _scalar(name: str, datatype: Datatype, value: Any) -> str | int | float:
    match datatype:
        case Datatype.BYTES:
            try:
                return value if isinstance(value, str) else bytes(value).decode("utf-8")
            except UnicodeDecodeError:
                raise InvalidRequest(f"input {name!r}: is not valid UTF-8; send text") from None
        case Datatype.FP32:
            return float(str(value))  # 3.3, as it was meant, where a float32 holds 3.29999995
        case _:
            return int(value)


def _pixels(picture: Picture) -> npt.NDArray[np.uint8]:
    if picture.format == RAW:
        return np.frombuffer(picture.data, np.uint8).reshape(picture.height, picture.width, 3)
    with Image.open(io.BytesIO(picture.data)) as file:
        return np.asarray(file.convert("RGB"))


def _bytes_array(values: Sequence[bytes]) -> Array:
    array = np.empty(len(values), object)
    array[:] = values
    return array
