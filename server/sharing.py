"""Which images share the next engine call. Pure; imports engines alone."""

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

from mezzotint.engines.image import Image, Stage
from mezzotint.engines.variants import FULL

RowCap: TypeAlias = Callable[[Image, str], int]
"""Returns the most rows of a UNet call of images like this one, by the engine's variant."""

StepOf: TypeAlias = Callable[[Image], Hashable]
"""Returns the signature of an image's next denoising call (``next_step``)."""


def next_step(image: Image) -> Hashable:
    """Return the signature of an image's next denoising call, whether or not it is to be encoded before."""
    if image.stage is Stage.DENOISE:
        return image.signature
    encoded = copy.copy(image)
    encoded.stage = Stage.DENOISE
    return encoded.signature


def next_call(
    order: Sequence[Image], max_rows: RowCap, max_started: int, *, decoded_last: bool, step_of: StepOf = next_step
) -> tuple[Image, ...]:
    """Return the images of the next call, the first in order first; none where no image is here.

    Args:
        order: all images that want to run, the first to go first.
        max_rows: the most rows of one UNet call; an image that takes more has a call of its own.
        max_started: the most images that have begun and are not done.
        decoded_last: whether the last call was one of the decoder; then a denoising call goes before another such.
        step_of: what ``next_step`` returns, which does not change as long as an image has not begun.
    """
    waits = any(image.stage is Stage.DENOISE for image in order)
    decoding = next((image for image in order if image.stage is Stage.DECODE), None)
    if decoding is not None and not (decoded_last and waits):
        return (decoding,)
    repeated = next((image for image in order if image.is_alone), None)
    if repeated is not None:  # its own call shows at once whether it may share others again
        return (repeated,)
    places = max_started - sum(image.has_begun for image in order)
    joint = _joint([image for image in order if image.stage is not Stage.DECODE], max_rows, places, step_of)
    encoded = tuple(image for image in joint if image.stage is Stage.ENCODE)
    return tuple(image for image in encoded if image.signature == encoded[0].signature) if encoded else joint


def _joint(order: Sequence[Image], max_rows: RowCap, places: int, step_of: StepOf) -> tuple[Image, ...]:
    """Return the first image and those behind it that share its next denoising call, of which some are encoded first.

    They are as many as fit and overtake nobody of their signature. ``places`` new ones may begin.
    """
    chosen: list[Image] = []
    step: Hashable = None
    num_rows = 0
    for image in order:
        if not image.has_begun and not places:
            continue
        if chosen and step_of(image) != step:
            continue
        most = max_rows(image, image.variant if image.stage is Stage.DENOISE else FULL)
        if chosen and num_rows + image.num_rows > most:
            break
        if not chosen:
            step = step_of(image)
        chosen.append(image)
        num_rows += image.num_rows
        places -= not image.has_begun
    return tuple(chosen)
