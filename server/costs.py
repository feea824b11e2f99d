"""How many seconds of engine time an image still is, by what was measured of its engines. Imports engines alone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mezzotint.engines.image import Image, Stage
from mezzotint.engines.manifest import Component, EngineEntry, Manifest
from mezzotint.engines.rows import split_rows
from mezzotint.engines.variants import FULL

_UNKNOWN_ROW_SECONDS = {Component.UNET: 1.0}  # then work is counted in rows; other components are small beside it
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

    def stretch(self, num_images: int) -> float:
        """Return the seconds that one second of an image's denoising work takes where so many images share calls."""
        ...


class EvaluationCosts:
    """Each evaluation is a second, whoever shares it: where nothing is known."""

    def work_left(self, image: Image) -> Work:
        """Return the evaluations that are left."""
        return Work(float(image.remaining), 0.0)

    def call_seconds(self, images: Sequence[Image]) -> float:
        """Return one for each image that denoises."""
        return float(sum(image.stage is Stage.DENOISE for image in images))

    def stretch(self, num_images: int) -> float:
        """Return the number of images: sharing gains nothing."""
        return float(num_images)


class EngineCosts:
    """What each of a bundle's engines takes, by rows.

    Seconds are those of the machine that measured: another one is off by about one factor, which changes an order
    little, and which a forecast learns (``forecast.Pace``).
    """

    def __init__(self, manifest: Manifest) -> None:
        self._entries = {(entry.component, entry.variant): entry for entry in manifest.engines}
        self._row_seconds = {key: _row_seconds(entry) for key, entry in self._entries.items()}
        latents = manifest.latents
        self._usual_area = latents.default_height * latents.default_width // latents.factor**2

    @property
    def row_seconds(self) -> float:
        """The seconds of one row of the whole UNet, in the calls that gain most."""
        return self._row_seconds[Component.UNET, FULL]

    def work_left(self, image: Image) -> Work:
        """Return the seconds that an image's calls still take, its share of them where others take part."""
        if image.stage is Stage.DONE:
            return Work(0.0, 0.0)
        seconds = self._row_seconds
        unet = sum(
            seconds[Component.UNET, call.variant] * len(call.weights) for call in image.calls[image.evaluation :]
        )
        decoder = sum(seconds[Component.VAE_DECODER, part] for part in image.decoder[image.part :])
        check = seconds[Component.SAFETY_CHECKER, FULL] if image.has_check else 0.0
        text = seconds[Component.TEXT_ENCODER, FULL] * image.num_rows if image.stage is Stage.ENCODE else 0.0
        area = self._area(image)
        return Work(unet * area, text + check + decoder * area)

    def call_seconds(self, images: Sequence[Image]) -> float:
        """Return the seconds of the images' next denoising call; 0 of another one, which is not predicted."""
        head = images[0]
        if head.stage is not Stage.DENOISE:
            return 0.0
        return self._unet_seconds(head.variant, sum(image.num_rows for image in images)) * self._area(head)

    def stretch(self, num_images: int) -> float:
        """Return the seconds that one second of denoising work takes, at two rows an image."""
        return self._unet_seconds(FULL, num_images * USUAL_ROWS) / (
            USUAL_ROWS * self._row_seconds[Component.UNET, FULL]
        )

    def _unet_seconds(self, variant: str, num_rows: int) -> float:
        measured = self._entries[Component.UNET, variant].step_ms
        if not measured:
            return num_rows * self._row_seconds[Component.UNET, variant]
        return sum(measured[part] for part in split_rows(num_rows, tuple(measured))) / 1e3

    def _area(self, image: Image) -> float:
        _, height, width = image.shape
        return height * width / self._usual_area


def _row_seconds(entry: EngineEntry) -> float:
    measured = [ms / 1e3 / rows for rows, ms in entry.step_ms.items()]
    return min(measured, default=_UNKNOWN_ROW_SECONDS.get(entry.component, 0.0))
