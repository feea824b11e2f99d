"""A request for pictures, as every front end states it, and the checks that need nothing but the manifest.

Imports the engines' own modules. Bad input ends here and never reaches an engine.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mezzotint.engines.component import Component
from mezzotint.engines.composition import Part, split_and
from mezzotint.engines.errors import InvalidRequest, ShapeNotCompiled
from mezzotint.engines.given_arrays import Float32Array, check_array, check_sigmas, check_states
from mezzotint.engines.guidance import GUIDANCE
from mezzotint.engines.hires import NO_HIRES, Hires
from mezzotint.engines.manifest import AxisRange, Manifest
from mezzotint.engines.noise import MAX_SEED
from mezzotint.engines.schedule import Spacing
from mezzotint.engines.start import NO_START, Start
from mezzotint.engines.variants import DECODERS, SHALLOW, TINY, has_variant
from mezzotint.engines.variation import NO_VARIATION, Variation

MAX_PROMPT_BYTES = 16_384
MAX_IMAGES = 64
MAX_GUIDANCE = 100.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """One or more pictures of one prompt; picture i is drawn from ``seed + i``.

    Attributes:
        prompt: what to draw, in A1111's language (``prompts/``) and of any length that the bundle was built for; the
            word AND in capitals composes it of several (``composition.py``). ``negative_prompt`` has no AND.
        seed: 0 to 2**63 − 1; the same seed gives the same picture, and on a CPU the one that diffusers gives.
        sampler: our name, diffusers', A1111's or k-diffusion's; empty, or ``automatic``, is the checkpoint's own.
        sigmas: the noise levels: empty is what the sampler's name says, ``default`` as trained, ``karras``,
            ``exponential``, ``beta``, or ``automatic``, which is A1111's choice for the sampler.
        spacing: ``leading``, ``trailing`` or ``linspace``; empty is the checkpoint's own.
        eta: DDIM's share of fresh noise, or TCD's gamma.
        height: pixels; 0 is the bundle's default, as is ``width``'s.
        preview_every: a small preview after every so many steps; 0 is never.
        latents: float32 [num_images, C, height, width] of latent pixels, unit gaussian noise instead of the seed's.
        prompt_states: float32 [tokens, width], the text encoder's output instead of ``prompt``.
        negative_prompt_states: the same for ``negative_prompt``.
        custom_sigmas: noise levels of ``steps`` evaluations, falling, instead of the schedule's.
        return_latents: give the final latents back as well.
        guidance_start: where guidance begins and where, at ``guidance_end``, it ends, as shares of the steps that are
            complete: a step is guided where start <= share < end, and elsewhere its conditional row runs alone.
        guidance_rescale: 0 to 1, how much of the conditional row's spread guided outputs are given back, which keeps
            pictures of strong guidance from too much contrast; 0.7 is usual with it.
        cache_interval: run the whole UNet at every n-th evaluation and its outer branch at those between; 1 is always.
        cache_schedule: the evaluations that run the whole UNet, rising, instead of an interval; the first, 0, always
            does. Heun takes two evaluations a step.
        decoder: ``full`` or ``tiny``; empty is ``full``, the checkpoint's own.
        clip_skip: the text encoder's layer whose states are used, counted from the end as in A1111: 2 is the last but
            one; 0 and 1 are the last, which is the checkpoint's own.
        start: an initial picture, and what becomes of it.
        variation: how the pictures differ from the seed's.
        hires: whether the picture is enlarged and denoised again.
    """

    prompt: str = ""
    negative_prompt: str = ""
    steps: int = 25
    guidance: float = 7.5
    seed: int = 0
    sampler: str = ""
    sigmas: str = ""
    spacing: str = ""
    eta: float = 0.0
    height: int = 0
    width: int = 0
    num_images: int = 1
    preview_every: int = 0
    latents: Float32Array | None = None
    prompt_states: Float32Array | None = None
    negative_prompt_states: Float32Array | None = None
    custom_sigmas: tuple[float, ...] = ()
    return_latents: bool = False
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    guidance_rescale: float = 0.0
    cache_interval: int = 1
    cache_schedule: tuple[int, ...] = ()
    decoder: str = ""
    clip_skip: int = 0
    start: Start = NO_START
    variation: Variation = NO_VARIATION
    hires: Hires = NO_HIRES

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the prompt is composed of. Raises InvalidRequest."""
        return split_and(self.prompt) if self.prompt_states is None else (Part(""),)

    @property
    def caches_steps(self) -> bool:
        """Whether some evaluations may run the UNet's outer branch alone."""
        return self.cache_interval != 1 or bool(self.cache_schedule)


_GROUPS: Mapping[str, type[Any]] = {"start": Start, "variation": Variation, "hires": Hires}


def request_of(values: Mapping[str, Any]) -> Request:
    """Return the request of flat values, as front ends have them: a group's stand under the names of its own fields."""
    flat, groups = dict(values), dict[str, Any]()
    for name, kind in _GROUPS.items():
        groups[name] = kind(**{own.name: flat.pop(own.name) for own in fields(kind) if own.name in flat})
    return Request(**flat, **groups)


def check_request(request: Request, manifest: Manifest) -> None:
    """Refuse what no engine of the bundle could do. Raises InvalidRequest, ShapeNotCompiled."""
    for field in ("prompt", "negative_prompt"):
        _check_text(field, getattr(request, field))
    _check_between("steps", request.steps, 1, manifest.schedule.num_train_timesteps)
    _check_between("num_images", request.num_images, 1, MAX_IMAGES)
    _check_between("preview_every", request.preview_every, 0, manifest.schedule.num_train_timesteps)
    _check_between("seed", request.seed, 0, MAX_SEED - request.num_images + 1)
    request.variation.check(request.num_images)
    if not math.isfinite(request.guidance) or not 0 <= request.guidance <= MAX_GUIDANCE:
        raise InvalidRequest(
            f"guidance={request.guidance}: must be between 0 and {MAX_GUIDANCE:g}; 7.5 is usual, 1 or less is none"
        )
    _check_interval(request)
    _check_caching(request, manifest)
    _check_decoder(request, manifest)
    request.start.check(manifest)
    if request.spacing and request.spacing not in set(Spacing):
        raise InvalidRequest(f"spacing={request.spacing!r}: must be one of {', '.join(Spacing)}, or empty")
    for side in ("height", "width"):
        _check_side(side, getattr(request, side), manifest)
    _check_arrays(request, manifest)
    _check_hires(request, manifest)


def size_of(request: Request, manifest: Manifest) -> tuple[int, int]:
    """Return the (height, width) of the request's pictures, in pixels."""
    latents = manifest.latents
    return request.height or latents.default_height, request.width or latents.default_width


def final_size_of(request: Request, manifest: Manifest) -> tuple[int, int]:
    """Return the (height, width) that the request's pictures have in the end, in pixels."""
    size = size_of(request, manifest)
    return request.hires.size(*size, manifest.latents.size_multiple) if request.hires else size


def sampler_of(request: Request, manifest: Manifest) -> str:
    """Return the name of the request's sampler: the checkpoint's own where it names none, or says "automatic"."""
    return manifest.schedule.default_sampler if request.sampler.lower() in ("", "automatic") else request.sampler


def pixel_range(manifest: Manifest, side: str) -> AxisRange:
    """Return the pixels that the bundle was built for along ``height`` or ``width``."""
    latent = manifest.engine(Component.UNET).axes[side]
    factor = manifest.latents.factor
    return AxisRange(min=latent.min * factor, opt=latent.opt * factor, max=latent.max * factor)


def _check_text(field: str, text: str) -> None:
    try:
        num_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidRequest(f"{field}: is not valid UTF-8; send text") from None
    if num_bytes > MAX_PROMPT_BYTES:
        raise InvalidRequest(f"{field}: is {num_bytes} bytes long; the limit is {MAX_PROMPT_BYTES}, shorten it")


def _check_between(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidRequest(f"{field}={value}: must be between {least} and {most}")


def _check_interval(request: Request) -> None:
    start, end = request.guidance_start, request.guidance_end
    for field, share in (("guidance_start", start), ("guidance_end", end)):
        if not 0 <= share <= 1:
            raise InvalidRequest(f"{field}={share}: must be a share of the steps, between 0 and 1")
    if not 0 <= request.guidance_rescale <= 1:
        raise InvalidRequest(
            f"guidance_rescale={request.guidance_rescale}: must be between 0 and 1; 0 is none, 0.7 is usual"
        )
    if start >= end:
        raise InvalidRequest(
            f"guidance_start={start:g}: must be below guidance_end={end:g}; for no guidance at all use guidance 1"
        )


def _check_caching(request: Request, manifest: Manifest) -> None:
    schedule = request.cache_schedule
    _check_between("cache_interval", request.cache_interval, 1, manifest.schedule.num_train_timesteps)
    if schedule and request.cache_interval != 1:
        raise InvalidRequest(
            f"cache_interval={request.cache_interval}: leaves no room for a cache_schedule; send one of them"
        )
    if any(evaluation < 0 for evaluation in schedule) or any(a >= b for a, b in itertools.pairwise(schedule)):
        raise InvalidRequest(f"cache_schedule={list(schedule)}: must be evaluations from 0 on, rising; such as 0, 3, 7")
    if request.caches_steps and not has_variant(manifest, Component.UNET, SHALLOW):
        field = "cache_schedule" if schedule else f"cache_interval={request.cache_interval}"
        raise InvalidRequest(
            f"{field}: bundle {manifest.name} was built without step caching; compile again with `--step-cache`"
        )


def _check_decoder(request: Request, manifest: Manifest) -> None:
    if request.decoder and request.decoder not in DECODERS:
        raise InvalidRequest(f"decoder={request.decoder!r}: must be one of {', '.join(DECODERS)}, or empty")
    if request.decoder == TINY and not has_variant(manifest, Component.VAE_DECODER, TINY):
        raise InvalidRequest(
            f"decoder={TINY!r}: bundle {manifest.name} was built without one; "
            "compile again with `--tiny-decoder FOLDER`"
        )


def _check_side(side: str, length: int, manifest: Manifest) -> None:
    if length == 0:
        return
    built, multiple = pixel_range(manifest, side), manifest.latents.size_multiple
    built_for = f"bundle {manifest.name} was built for {built.text()}"
    if length < 0 or length % multiple:
        below = max(built.min, min(built.max, length // multiple * multiple))
        above = max(built.min, min(built.max, below + multiple))
        nearest = str(below) if below == above else f"{below}, {above}"
        raise InvalidRequest(
            f"{side}={length}: must be a multiple of {multiple} between {built.min} and {built.max}; "
            f"nearest {nearest} ({built_for})"
        )
    if length not in built:
        raise ShapeNotCompiled(f"{side}={length}: {built_for}; ask for that, or compile again with `--{side} {length}`")


def _check_arrays(request: Request, manifest: Manifest) -> None:
    shape = (request.num_images, *manifest.latents.shape(*size_of(request, manifest)))
    check_array("latents", request.latents, shape)
    check_states("prompt_states", request.prompt_states, manifest)
    check_states("negative_prompt_states", request.negative_prompt_states, manifest)
    has_negative = request.guidance > 1 and manifest.engine(Component.UNET).input_of(GUIDANCE) is None
    if (request.prompt_states is None) != (request.negative_prompt_states is None) and has_negative:
        raise InvalidRequest(
            "prompt_states and negative_prompt_states: must come together at guidance above 1; send both"
        )
    if request.prompt_states is not None and request.negative_prompt_states is not None:
        check_array("negative_prompt_states", request.negative_prompt_states, request.prompt_states.shape)
    check_sigmas(request.custom_sigmas, request.steps)


def _check_hires(request: Request, manifest: Manifest) -> None:
    request.hires.check(request.steps, size_of(request, manifest), manifest)
    if not request.hires:
        return
    others = {"image": request.start.is_given, "custom_sigmas": request.custom_sigmas}
    for field, is_given in (others | {"cache_schedule": request.cache_schedule}).items():
        if is_given:
            raise InvalidRequest(
                f"hires_scale={request.hires.hires_scale:g}: paints a picture twice, and {field} is for one that is "
                "painted once; send one of them"
            )
