"""What a server does with pictures that the safety checker flags, and what it must not show before. Knows no wire."""

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

from mezzotint.engines.errors import BundleError, FlaggedPicture
from mezzotint.engines.image import Image
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.request import Request

_COLOURS = 8  # along each side of a blurred picture: what it shows cannot be told, nor computed back


class OnFlagged(StrEnum):
    """What becomes of a flagged picture: it is given and said to be, given blurred, or its request is refused."""

    MARK = "mark"
    BLUR = "blur"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What is given of a picture: pixels, latents where they were asked for, and a word for its parameters."""

    pixels: npt.NDArray[np.uint8]
    latents: npt.NDArray[np.float32] | None
    note: str = ""


def check_bundle(manifest: Manifest, on_flagged: OnFlagged) -> None:
    """Refuse to serve unchecked pictures where flagged ones must not be shown. Raises BundleError."""
    if on_flagged is not OnFlagged.MARK and manifest.safety is None:
        raise BundleError(
            f"bundle {manifest.name} has no safety checker, so `--on-flagged {on_flagged}` would hide nothing; compile "
            "it with `--with-safety-checker`, or serve it with `--on-flagged mark`"
        )


def without_previews(request: Request, on_flagged: OnFlagged) -> tuple[Request, tuple[str, ...]]:
    """Return the request that is served, and what of it is not: previews are pictures that nobody has checked."""
    if on_flagged is OnFlagged.MARK or not request.preview_every:
        return request, ()
    warning = "preview_every: this server shows nothing that its safety checker has not seen; there are no previews"
    return replace(request, preview_every=0), (warning,)


def shown(image: Image, pixels: npt.NDArray[np.uint8], on_flagged: OnFlagged) -> Shown:
    """Return what is given of a decoded image. Raises FlaggedPicture.

    Latents of a blurred picture are kept back, since whoever has them can decode them.
    """
    if not image.flagged:
        return Shown(pixels, image.latents)
    match on_flagged:
        case OnFlagged.MARK:
            return Shown(pixels, image.latents, "flagged")
        case OnFlagged.BLUR:
            return Shown(blurred(pixels), None, "blurred")
        case OnFlagged.REFUSE:
            raise FlaggedPicture(
                f"picture {image.index} (seed {image.seed}): was flagged by the safety checker, and this server gives "
                "no such pictures; change the prompt or the seed"
            )


def blurred(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return uint8 [H, W, 3] with nothing left of it but the mean colours of a coarse grid, and smooth between them."""
    height, width, _ = pixels.shape
    coarse = Picture.fromarray(pixels).resize((_COLOURS, _COLOURS), Picture.Resampling.BOX)
    return np.asarray(coarse.resize((width, height), Picture.Resampling.BICUBIC))
