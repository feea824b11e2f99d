"""How many seconds of engine time an image still is, by what the compiler measured. Imports engines alone."""

from mezzotint.engines.image import Image, Stage
from mezzotint.engines.manifest import Component, EngineEntry, Manifest
from mezzotint.engines.variants import FULL

_UNKNOWN_ROW_SECONDS = {Component.UNET: 1.0}  # then work is counted in rows; other components are small beside it


class Costs:
    """What each of a bundle's engines takes for a row, in the row count that is best for it.

    Seconds are those of the machine that compiled; on another one all are off by about one factor, which changes an
    order little.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._row_seconds = {(entry.component, entry.variant): _row_seconds(entry) for entry in manifest.engines}
        latents = manifest.latents
        self._usual_area = latents.default_height * latents.default_width // latents.factor**2

    def seconds_left(self, image: Image) -> float:
        """Return the seconds that an image's calls still take, its share of them where others take part."""
        if image.stage is Stage.DONE:
            return 0.0
        seconds = self._row_seconds
        rest = image.calls[image.evaluation :]
        unet = sum(seconds[Component.UNET, call.variant] * len(call.weights) for call in rest)
        decoder = sum(seconds[Component.VAE_DECODER, part] for part in image.decoder[image.part :])
        text = seconds[Component.TEXT_ENCODER, FULL] * image.num_rows if image.stage is Stage.ENCODE else 0.0
        _, height, width = image.shape
        return text + (unet + decoder) * height * width / self._usual_area


def _row_seconds(entry: EngineEntry) -> float:
    measured = [ms / 1e3 / rows for rows, ms in entry.step_ms.items()]
    return min(measured, default=_UNKNOWN_ROW_SECONDS.get(entry.component, 0.0))
