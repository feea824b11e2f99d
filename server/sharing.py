"""Which images share the next engine call. Pure; imports engines alone."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from mezzotint.engines.image import Image, Stage
from mezzotint.engines.variants import FULL

RowCap: TypeAlias = Callable[[Image, str], int]
"""Returns the most rows of a UNet call of images like this one, by the engine's variant."""


def next_call(order: Sequence[Image], max_rows: RowCap, max_started: int, *, decoded_last: bool) -> tuple[Image, ...]:
    """Return the images of the next call, the first in order first; none where no image is here.

    Args:
        order: all images that want to run, the first to go first.
        max_rows: the most rows of one UNet call; an image that takes more has a call of its own.
        max_started: the most images between encoding and decoding.
        decoded_last: whether the last call was one of the decoder; then a denoising call goes before another such.
    """
    waits = any(image.stage is Stage.DENOISE for image in order)
    decoding = next((image for image in order if image.stage is Stage.DECODE), None)
    if decoding is not None and not (decoded_last and waits):
        return (decoding,)
    places = max_started - sum(image.stage is not Stage.ENCODE for image in order)
    joint = _joint([image for image in order if image.stage is not Stage.DECODE], max_rows, places)
    new = tuple(image for image in joint if image.stage is Stage.ENCODE)
    return tuple(image for image in new if image.signature == new[0].signature) if new else joint


def _joint(order: Sequence[Image], max_rows: RowCap, places: int) -> tuple[Image, ...]:
    """Return the first image and those behind it that share its call, new ones among them that shall join it.

    They are as many as fit and overtake nobody. A new image's first call is a full one; ``places`` of them may
    start.
    """
    chosen: list[Image] = []
    head: Image | None = None  # the first that has been started
    num_rows = 0
    for image in order:
        is_new = image.stage is Stage.ENCODE
        if is_new and not places:
            continue
        if not is_new and head is not None and image.signature != head.signature:
            continue
        most = max_rows(image, FULL if is_new else image.variant)
        if chosen and num_rows + image.num_rows > most:
            break
        chosen.append(image)
        num_rows += image.num_rows
        places -= is_new
        head = head or (None if is_new else image)
    return tuple(chosen)
