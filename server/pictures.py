"""Finished images into picture files with their parameters, and latents into previews. Runs in the core's executor."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.picture import check_format, encode_picture, parameters_text
from mezzotint.engines.request import sampler_of, size_of
from mezzotint.engines.sampling import get_sampler
from mezzotint.engines.schedule import SigmaSpacing
from mezzotint.engines.variants import TILE
from mezzotint.server.events import Picture, Preview, Timings
from mezzotint.server.flagged import OnFlagged, shown

Latents: TypeAlias = npt.NDArray[np.float32]
"""float32 [C, height, width], on the host."""

RAW = "raw"
"""A picture's format where its ``data`` are its pixels, uint8 [height, width, 3], for front ends that send arrays."""

_PREVIEW_QUALITY = 80


@dataclass(frozen=True, slots=True)
class PictureOptions:
    """How pictures are written; ``quality`` is JPEG's and WebP's. Raises InvalidRequest."""

    format: str = "png"
    quality: int = 90

    def __post_init__(self) -> None:
        if self.format != RAW:
            check_format(self.format)
        if not 1 <= self.quality <= 100:
            raise InvalidRequest(f"quality={self.quality}: must be between 1 and 100; 90 is usual")


def finish_picture(
    model: Model, image: Image, options: PictureOptions, spent: Timings, on_flagged: OnFlagged
) -> Picture:
    """Encode a decoded image, or what is shown of it.

    Raises:
        InvalidRequest: the format cannot hold its parameters.
        FlaggedPicture: the safety checker flagged it, and ``on_flagged`` refuses it.
    """
    if image.pixels is None:
        raise ValueError(f"image {image.index} has no pixels; decode it first")
    manifest, request = model.manifest, image.request
    given = shown(image, image.pixels, on_flagged)
    height, width, _ = given.pixels.shape
    about = (options.format, width, height, model.digest)
    if options.format == RAW:
        data = given.pixels.tobytes()
        return Picture(image.index, image.seed, data, *about, given.latents, spent, image.flagged)
    sampler, sigmas = get_sampler(sampler_of(request, manifest), request.sigmas)
    parameters = parameters_text(
        request,
        seed=image.seed,
        sampler_label=sampler.label,
        schedule_type="" if sigmas is SigmaSpacing.AS_TRAINED or request.custom_sigmas else sigmas.value.capitalize(),
        size=size_of(request, manifest),
        model=model.name,
        digest=model.digest,
        precision=manifest.engine(Component.UNET).precision,
        safety=given.note,
        subseed=request.variation.seeds(request.seed, image.index)[1],
        embeddings=model.prompts.words.hashes((request.prompt, request.negative_prompt)),
        num_tiles=image.decoder.count(TILE) - 1 if TILE in image.decoder else 0,
    )
    data = encode_picture(given.pixels, format=options.format, quality=options.quality, parameters=parameters)
    return Picture(image.index, image.seed, data, *about, given.latents, spent, image.flagged)


def encode_preview(model: Model, latents: Latents) -> Preview:
    """Encode the preview of predicted clean latents, float32 [C, height, width], at their own size."""
    pixels = model.preview_rgb(latents)
    height, width, _ = pixels.shape
    return Preview(encode_picture(pixels, format="jpeg", quality=_PREVIEW_QUALITY), width, height)


def timings(images: Sequence[Image], *, arrival: float, started: float | None, now: float) -> Timings:
    """Return the times of the slowest of the images; ``arrival``, ``started`` and ``now`` are seconds of one clock."""

    def most(stage: Stage) -> float:
        return max((image.stage_ms.get(stage, 0.0) for image in images), default=0.0)

    return Timings(
        queue_ms=((now if started is None else started) - arrival) * 1e3,
        encode_ms=most(Stage.ENCODE),
        denoise_ms=most(Stage.DENOISE),
        decode_ms=most(Stage.DECODE),
        total_ms=(now - arrival) * 1e3,
    )
