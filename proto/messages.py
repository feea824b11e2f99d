"""Requests from plain arguments, for both clients. Imports the stubs, and numpy only where arrays are sent."""

import operator
import secrets
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.errors import invalid
from mezzotint.proto.results import FORMATS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAX_SEED = 2**63 - 1
CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 250),  # a server that was restarted is there soon
    ("grpc.max_reconnect_backoff_ms", 5_000),
    (
        "grpc.keepalive_time_ms",
        310_000,
    ),  # a machine that is gone is noticed; servers by default end what pings every 300 s
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.max_pings_without_data", 0),
)

_MAX_DRAWN_SEED = 2**32  # what a client draws also fits into other programs' seed fields
_ARRAYS = frozenset(("latents", "prompt_states", "negative_prompt_states"))
_FILES = frozenset(("image", "mask"))
_LISTS = frozenset(("custom_sigmas", "cache_schedule"))


class Options(TypedDict, total=False):
    """What a request may say beside its prompt; what is left out takes the server's default.

    Attributes:
        model: the bundle's name; may be left out where the server serves one.
        negative_prompt: what the picture should not show.
        steps: denoising steps.
        guidance: how closely to follow the prompt; 1 or less is not at all guided, and twice as fast.
        seed: 0 to 2**63 − 1; picture i is drawn from seed + i. The client draws one if it is left out.
        subseed: the seed that a variation's noise is turned towards; picture i has subseed + i, and all one seed.
        subseed_strength: how far, 0 to 1; 0 is no variation.
        sampler: our name, diffusers', A1111's or k-diffusion's.
        sigmas: ``default``, ``karras``, ``exponential``, ``beta`` or ``automatic``.
        spacing: ``leading``, ``trailing`` or ``linspace``.
        eta: DDIM's share of fresh noise, TCD's gamma.
        width: pixels, as ``height``.
        num_images: how many pictures.
        preview_every: a preview after every so many steps.
        image_format: ``png``, ``jpeg`` or ``webp``.
        quality: of JPEG and WebP, 1 to 100.
        latents: float32 [num_images, C, h, w], unit gaussian noise instead of the seed's.
        prompt_states: float32 [tokens, width], the text encoder's output instead of a prompt.
        negative_prompt_states: the same for the negative prompt.
        custom_sigmas: noise levels of the steps, falling.
        return_latents: give the final latents back.
        guidance_start: guide only from this share of the steps on.
        guidance_end: and only up to this one; elsewhere a step takes half the time.
        guidance_rescale: how much of the conditional output's spread guided ones are given back, 0 to 1.
        cache_interval: the whole UNet at every n-th evaluation, its outer branch between; 1 is off.
        cache_schedule: the evaluations that run the whole UNet, instead of an interval.
        decoder: ``full`` or ``tiny``.
        clip_skip: the text encoder's layer that is used, from the end: 2 is the last but one; 0 and 1 are the last.
        image: an initial picture, the bytes of a PNG, JPEG or WebP file.
        strength: 0 to 1, how much becomes of it; 0.8 by default.
        mask: the bytes of a file of its size: white is drawn anew.
        mask_blur: pixels by which the mask's edge is feathered.
        resize_mode: ``stretch``, ``crop`` or ``fill`` for an image of another size.
        hires_scale: enlarge the picture so many times and denoise it again; 0 is off.
        hires_steps: the steps of that; 0 is as many as ``steps``.
        hires_strength: above 0 to 1, how much is drawn anew; 0.7 is usual.
        hires_upscaler: ``latent`` or ``lanczos``.
        priority: 1 goes first; 0 is the server's middle level.
        request_id: the request's name in the server's log; the client makes one up if it is left out.
    """

    model: str
    negative_prompt: str
    steps: int
    guidance: float
    seed: int | None
    subseed: int
    subseed_strength: float
    sampler: str
    sigmas: str
    spacing: str
    eta: float
    width: int | None
    height: int | None
    num_images: int
    preview_every: int
    image_format: str
    quality: int
    latents: "npt.NDArray[np.float32] | None"
    prompt_states: "npt.NDArray[np.float32] | None"
    negative_prompt_states: "npt.NDArray[np.float32] | None"
    custom_sigmas: Sequence[float]
    return_latents: bool
    guidance_start: float
    guidance_end: float
    guidance_rescale: float
    cache_interval: int
    cache_schedule: Sequence[int]
    decoder: str
    clip_skip: int
    hires_scale: float
    hires_steps: int
    hires_strength: float
    hires_upscaler: str
    image: bytes
    strength: float | None
    mask: bytes
    mask_blur: float
    resize_mode: str
    priority: int
    request_id: str


def build_request(prompt: str, options: Options) -> pb.GenerateRequest:
    """Return the message of a request; a seed and an id are drawn where there are none.

    Raises:
        MezzotintClientError: a value does not fit into the message (INVALID_ARGUMENT).
        TypeError: an option is unknown.
    """
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}; there are {', '.join(Options.__annotations__)}")
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    values.setdefault("seed", secrets.randbelow(_MAX_DRAWN_SEED))
    values["request_id"] = values.get("request_id") or uuid.uuid4().hex
    values["prompt"] = prompt
    try:
        values["seed"] = operator.index(values["seed"])  # numpy's integers are numbers too
    except TypeError:
        raise invalid(f"seed={values['seed']!r}: must be an integer") from None
    if not 0 <= values["seed"] <= MAX_SEED:
        raise invalid(f"seed={values['seed']}: must be between 0 and {MAX_SEED}")
    message = pb.GenerateRequest()
    for name, value in values.items():
        try:
            _set(message, name, value)
        except (TypeError, ValueError) as error:
            shown = "" if name in _ARRAYS | _FILES else f"={value!r}"
            raise invalid(f"{name}{shown}: cannot be sent ({error})") from None
    return message


def _set(message: pb.GenerateRequest, name: str, value: Any) -> None:
    if name in _ARRAYS:
        getattr(message, name).CopyFrom(_tensor(value))
    elif name in _LISTS:
        getattr(message, name).extend(value)
    elif name == "image_format":
        if value.lower() not in FORMATS:
            raise invalid(f"image_format={value!r}: must be one of {', '.join(FORMATS)}")
        message.image_format = FORMATS[value.lower()]
    else:
        setattr(message, name, value)


def _tensor(array: Any) -> pb.Tensor:
    import numpy as np

    host = np.ascontiguousarray(array, dtype="<f4")
    return pb.Tensor(shape=host.shape, data=host.tobytes())
