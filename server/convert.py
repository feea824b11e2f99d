"""Between the messages of our own protocol and what the core speaks."""

import math
import string
import uuid
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.prompts.rows import max_chunks
from mezzotint.engines.request import pixel_range, request_of
from mezzotint.engines.sampling import SAMPLERS
from mezzotint.engines.variants import FULL
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.catalog import State, Version
from mezzotint.server.events import Accepted, Picture, Progress
from mezzotint.server.intake import Order
from mezzotint.server.limits import check_length, check_lengths
from mezzotint.server.pictures import PictureOptions

M = TypeVar("M", bound=Message)

_FORMATS = {
    pb.IMAGE_FORMAT_UNSPECIFIED: "png",
    pb.IMAGE_FORMAT_PNG: "png",
    pb.IMAGE_FORMAT_JPEG: "jpeg",
    pb.IMAGE_FORMAT_WEBP: "webp",
}
_STATE_CODES = {
    State.LOADING: pb.MODEL_STATE_LOADING,
    State.READY: pb.MODEL_STATE_READY,
    State.UNLOADING: pb.MODEL_STATE_UNLOADING,
    State.EVICTED: pb.MODEL_STATE_UNAVAILABLE,
    State.WAKING: pb.MODEL_STATE_LOADING,
    State.FAILED: pb.MODEL_STATE_UNAVAILABLE,
}
_FORMAT_CODES = {name: code for code, name in _FORMATS.items()}
_MAX_ID_LENGTH = 128
_ID_LETTERS = frozenset(string.ascii_letters + string.digits + "-_.:")
_ARRAYS = ("latents", "prompt_states", "negative_prompt_states")
_SCALARS = (
    *("prompt", "negative_prompt", "sampler", "sigmas", "spacing", "eta", "width", "height", "preview_every"),
    *("return_latents", "guidance_start", "guidance_rescale", "decoder", "clip_skip", "subseed", "subseed_strength"),
    *("image", "mask", "mask_blur", "resize_mode"),
    *("hires_scale", "hires_steps", "hires_upscaler"),
)
_OPTIONAL = ("steps", "guidance", "seed", "num_images", "guidance_end", "cache_interval", "strength", "hires_strength")
_LISTS = ("custom_sigmas", "cache_schedule")
_MAX_NAME_LENGTH = 256
_MAX_AXES = 4


def parse_as(kind: type[M], data: bytes, max_bytes: int) -> M | InvalidRequest:
    """Read a request's bytes; what is wrong with them is returned, since gRPC would turn an exception into INTERNAL."""
    if len(data) > max_bytes:
        return InvalidRequest(f"the request has {len(data)} bytes; this server takes {max_bytes}, send smaller arrays")
    try:
        return kind.FromString(data)
    except (DecodeError, UnicodeDecodeError):
        return InvalidRequest(
            f"the request's {len(data)} bytes are no {kind.DESCRIPTOR.full_name} with UTF-8 strings; check the client"
        )


def parsed(message: M | InvalidRequest) -> M:
    """Return a message that was read. Raises InvalidRequest where it could not be."""
    if isinstance(message, InvalidRequest):
        raise message
    return message


def request_id_of(message: pb.GenerateRequest | InvalidRequest) -> str:
    """Return the request's own id, or a fresh one where it has none or none that can be logged."""
    return id_or_fresh("" if isinstance(message, InvalidRequest) else message.request_id)


def order_of(message: pb.GenerateRequest | InvalidRequest) -> Order:
    """Return what a request asks for, with the defaults of ``Request``. Raises InvalidRequest."""
    message = parsed(message)
    if message.request_id and not is_id(message.request_id):
        raise InvalidRequest(
            f"request_id: must be at most {_MAX_ID_LENGTH} letters, digits and -_.:, such as a UUID; or leave it out"
        )
    if len(message.model) > _MAX_NAME_LENGTH:
        raise InvalidRequest(
            f"model: has a length of {len(message.model)}; the limit is {_MAX_NAME_LENGTH}, shorten it"
        )
    if message.image_format not in _FORMATS:
        raise InvalidRequest(f"image_format={message.image_format}: must be one of {', '.join(_FORMAT_CODES)}")
    values: dict[str, Any] = {name: getattr(message, name) for name in _SCALARS}
    values |= {name: getattr(message, name) for name in _OPTIONAL if message.HasField(name)}
    values |= {name: array_of(name, getattr(message, name)) for name in _ARRAYS if message.HasField(name)}
    for name in _LISTS:
        check_length(name, len(getattr(message, name)))
    values |= {name: tuple(getattr(message, name)) for name in _LISTS}
    request = request_of(values)
    check_lengths(request)
    quality = message.quality or PictureOptions().quality
    picture = PictureOptions(_FORMATS[message.image_format], quality)
    return Order(message.model, request, picture, message.priority)


def array_of(field: str, tensor: pb.Tensor) -> npt.NDArray[np.float32]:
    """Return a Tensor as a float32 array. Raises InvalidRequest where its shape and its data do not agree."""
    shape = tuple(tensor.shape[: _MAX_AXES + 1])
    if len(shape) > _MAX_AXES:
        raise InvalidRequest(f"{field}: has {len(tensor.shape)} axes; the limit is {_MAX_AXES}")
    num_bytes = 4 * math.prod(shape)
    if min(shape, default=0) < 1 or num_bytes != len(tensor.data):
        raise InvalidRequest(
            f"{field}: has {len(tensor.data)} bytes for shape {list(shape)}; must be little-endian float32, 4 each"
        )
    return np.frombuffer(tensor.data, dtype="<f4").reshape(shape).astype(np.float32, copy=False)


def tensor_of(array: npt.NDArray[np.float32]) -> pb.Tensor:
    """Return an array as a Tensor."""
    return pb.Tensor(shape=array.shape, data=np.ascontiguousarray(array, dtype="<f4").tobytes())


def message_of(event: Accepted | Progress | Picture) -> pb.GenerateEvent:
    """Return an event as the message that carries it."""
    match event:
        case Accepted():
            return pb.GenerateEvent(
                accepted=pb.Accepted(
                    request_id=event.request_id,
                    seeds=event.seeds,
                    steps=event.steps,
                    queue_position=event.queue_position,
                    warnings=event.warnings,
                    start_in_ms=event.start_in_ms,
                    finish_in_ms=event.finish_in_ms,
                )
            )
        case Progress():
            progress = pb.Progress(
                image_index=event.image_index, step=event.step, steps=event.steps, finish_in_ms=event.finish_in_ms
            )
            if event.preview is not None:
                preview = event.preview
                progress.preview.CopyFrom(pb.Preview(data=preview.data, width=preview.width, height=preview.height))
            return pb.GenerateEvent(progress=progress)
        case Picture():
            return pb.GenerateEvent(image=_image_of(event))


def model_info_of(version: Version) -> pb.ModelInfo:
    """Return what a bundle was built for and whether it is ready; little of one that has not been read yet."""
    state = _STATE_CODES[version.state]
    info = pb.ModelInfo(name=version.name, digest=version.digest, state=state, reason=version.reason)
    if version.core is not None:
        info.max_rows = version.core.model.max_rows[FULL]
    if version.manifest is not None:
        info.MergeFrom(_built_for(version.manifest))
    return info


def _built_for(manifest: Manifest) -> pb.ModelInfo:
    width, height = pixel_range(manifest, "width"), pixel_range(manifest, "height")
    latents = manifest.latents
    return pb.ModelInfo(
        family=manifest.family,
        width=pb.SizeRange(min=width.min, default=latents.default_width, max=width.max),
        height=pb.SizeRange(min=height.min, default=latents.default_height, max=height.max),
        size_multiple=latents.size_multiple,
        samplers=list(SAMPLERS),
        default_sampler=manifest.schedule.default_sampler,
        max_tokens=max_chunks(manifest) * (manifest.text.max_tokens - 2),
        engines=[
            pb.EngineInfo(
                component=e.component, variant=e.variant, precision=e.precision, backend=e.backend, device=e.device
            )
            for e in manifest.engines
        ],
    )


def _image_of(event: Picture) -> pb.ImageResult:
    spent = event.timings
    image = pb.ImageResult(
        image_index=event.image_index,
        seed=event.seed,
        data=event.data,
        format=_FORMAT_CODES[event.format],
        width=event.width,
        height=event.height,
        engine_digest=event.digest,
        latents=None if event.latents is None else tensor_of(event.latents),
        timings=pb.Timings(
            queue_ms=spent.queue_ms,
            encode_ms=spent.encode_ms,
            denoise_ms=spent.denoise_ms,
            decode_ms=spent.decode_ms,
            total_ms=spent.total_ms,
        ),
    )
    if event.flagged is not None:
        image.flagged = event.flagged
    return image


def is_id(text: str) -> bool:
    """Return whether a client's id of a request can be logged."""
    return len(text) <= _MAX_ID_LENGTH and set(text) <= _ID_LETTERS


def id_or_fresh(given: str) -> str:
    """Return a client's id of a request, or a fresh one where it is empty or cannot be logged."""
    return given if given and is_id(given) else uuid.uuid4().hex
