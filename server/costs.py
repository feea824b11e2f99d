"""How many seconds of engine time an image still is, by what was measured of its engines. Imports engines alone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mezzotint.engines.component import Component
from mezzotint.engines.curves import EngineCurves
from mezzotint.engines.evaluations import UNetCall
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.model import EngineKey
from mezzotint.engines.prepared import max_rows
from mezzotint.engines.prompts.rows import num_chunks
from mezzotint.engines.rows import Curve, call_ms
from mezzotint.engines.sizes import Size, own_size, size_of_engine
from mezzotint.engines.variants import FULL, PICTURE

_UNKNOWN_ROW_SECONDS = {Component.UNET: 1.0}  # then work is counted in rows; other components are small beside it
_MAX_KNOWN = 1024  # engines at a size; clients may ask for many sizes
USUAL_ROWS = 2
"""The rows of an image in a call: those of guidance."""


class Work(NamedTuple):
    """Seconds of engine time: of denoising, an image's share of the calls that gain most, and of all else."""

    denoising: float
    rest: float

    @property
    def seconds(self) -> float:
        """All of them."""
        return self.denoising + self.rest


class Costs(Protocol):
    """What the scheduler knows of its engines' time."""

    def work_left(self, image: Image) -> Work:
        """Return what an image still takes."""
        ...

    def call_seconds(self, images: Sequence[Image]) -> float:
        """Return what the images' next call takes where they share it; 0 where that is not predicted."""
        ...

    def stretch(self, num_images: int, like: Image) -> float:
        """Return the seconds that one second of denoising takes where so many images like one share calls."""
        ...


class EvaluationCosts:
    """Each evaluation is a second, whoever shares it: where nothing is known."""

    def work_left(self, image: Image) -> Work:
        """Return the evaluations that are left."""
        return Work(float(image.remaining), 0.0)

    def call_seconds(self, images: Sequence[Image]) -> float:
        """Return one for each image that denoises."""
        return float(sum(image.stage is Stage.DENOISE for image in images))

    def stretch(self, num_images: int, like: Image) -> float:
        """Return the number of images: sharing gains nothing."""
        return float(num_images)


class _Known(NamedTuple):
    """What follows from an engine's curve of one size: its calls, seconds of a row at best, and the rows of that."""

    step_ms: dict[int, float]
    row_seconds: float
    max_rows: int


class EngineCosts:
    """What each of a bundle's engines takes, by rows and size; the loop thread's own.

    Seconds are those of the machine that measured: another one is off by about one factor, which changes an order
    little, and which a forecast learns (``forecast.Pace``).
    """

    def __init__(self, manifest: Manifest) -> None:
        self._entries = {(entry.component, entry.variant): entry for entry in manifest.engines}
        self._own = own_size(manifest)
        self._curves = {
            key: EngineCurves(entry, size_of_engine(entry, self._own)) for key, entry in self._entries.items()
        }
        self._known: dict[tuple[EngineKey, Size], _Known] = {}

    def learn(self, key: EngineKey, size: Size, curve: Curve) -> None:
        """Take a curve that was measured on this host, of an engine at one size; it holds from the next call on."""
        self._curves[key].learn(size, curve)
        self._known.clear()

    def max_rows(self, image: Image, variant: str) -> int:
        """Return the most rows of a UNet call that gain something at an image's size."""
        return self._of(Component.UNET, variant, size_of_image(image)).max_rows

    def usual_max_rows(self) -> dict[str, int]:
        """Return the most rows of a UNet call that gain something at the bundle's own size, by variant."""
        variants = [variant for component, variant in self._entries if component is Component.UNET]
        return {variant: self._of(Component.UNET, variant, self._own).max_rows for variant in variants}

    @property
    def row_seconds(self) -> float:
        """The seconds of one row of the whole UNet, in the calls that gain most."""
        return self._of(Component.UNET, FULL, self._own).row_seconds

    def work_left(self, image: Image) -> Work:
        """Return the seconds that an image's calls still take, its share of them where others take part."""
        if image.stage is Stage.DONE:
            return Work(0.0, 0.0)
        size = size_of_image(image)
        encoders = sum(
            self._of(component, FULL, size).row_seconds * n for component, n in rows_to_encode(image).items()
        )
        check = self._of(Component.SAFETY_CHECKER, FULL, size).row_seconds if image.has_check else 0.0
        decoder = self._decoding(image.decoder[image.part :], Size(*image.decoded_size, size.tokens))
        unet, rest = self._denoising(image.calls[image.evaluation :], size), encoders + check + decoder
        if image.then is not None:
            unet, rest = unet + self._denoising(image.then.calls, later_size(image)), rest + self._later(image)
        return Work(unet, rest)

    def _denoising(self, calls: Sequence[UNetCall], size: Size) -> float:
        rows = rows_of_calls(calls).items()
        return sum(self._of(Component.UNET, variant, size).row_seconds * n for variant, n in rows)

    def _decoding(self, decoder: Sequence[str], size: Size) -> float:
        return sum(self._of(Component.VAE_DECODER, part, size).row_seconds for part in decoder)

    def _later(self, image: Image) -> float:
        """Return the seconds beside the denoising of a walk that is to follow."""
        then, size = image.then, later_size(image)
        if then is None:
            return 0.0
        decoded = size if then.tiling is None else Size(*then.tiling.tile, size.tokens)
        encoder = self._of(Component.VAE_ENCODER, FULL, size).row_seconds if then.from_pixels else 0.0
        return encoder + self._decoding(then.decoder, decoded)

    def call_seconds(self, images: Sequence[Image]) -> float:
        """Return the seconds of the images' next denoising call; 0 of another one, which is not predicted."""
        head = images[0]
        if head.stage is not Stage.DENOISE:
            return 0.0
        return self._unet_seconds(head, head.variant, sum(image.num_rows for image in images))

    def stretch(self, num_images: int, like: Image) -> float:
        """Return the seconds that one second of denoising takes, at two rows an image of this one's size."""
        row_seconds = self._of(Component.UNET, FULL, size_of_image(like)).row_seconds
        return self._unet_seconds(like, FULL, num_images * USUAL_ROWS) / (USUAL_ROWS * row_seconds)

    def _unet_seconds(self, image: Image, variant: str, num_rows: int) -> float:
        known = self._of(Component.UNET, variant, size_of_image(image))
        if not known.step_ms:
            return num_rows * known.row_seconds
        return call_ms(num_rows, tuple(known.step_ms), known.step_ms) / 1e3

    def _of(self, component: Component, variant: str, size: Size) -> _Known:
        key = (component, variant)
        found = self._known.get((key, size))
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key, size] = self._found(key, size)
        return found

    def _found(self, key: EngineKey, size: Size) -> _Known:
        entry = self._entries[key]
        curve = self._curves[key].at(size_of_engine(entry, size))
        unknown = _UNKNOWN_ROW_SECONDS.get(entry.component, 0.0) * size.area / self._own.area
        best = min((ms / 1e3 / rows for rows, ms in curve.items()), default=unknown)
        return _Known(curve, best, max_rows(entry, curve))


def rows_of_calls(calls: Sequence[UNetCall]) -> dict[str, int]:
    """Return the rows of UNet calls by variant."""
    found: dict[str, int] = {}
    for call in calls:
        found[call.variant] = found.get(call.variant, 0) + len(call.weights)
    return found


def rows_to_encode(image: Image) -> dict[Component, int]:
    """Return the rows of the encoders' calls that an image still is."""
    if image.stage is not Stage.ENCODE:
        return {}
    text = {} if image.variant == PICTURE else {Component.TEXT_ENCODER: num_chunks(image.rows)}
    return text if image.canvas is None else text | {Component.VAE_ENCODER: image.canvas.given.num_encoded}


def later_size(image: Image) -> Size:
    """Return what the calls of a walk that is to follow depend on; of an image without one those of its own."""
    _, height, width = image.shape if image.then is None else image.then.shape
    return Size(height, width, image.rows[0].num_tokens)


def size_of_image(image: Image) -> Size:
    """Return what an image's calls depend on beside their rows."""
    _, height, width = image.shape
    return Size(height, width, image.rows[0].num_tokens)
