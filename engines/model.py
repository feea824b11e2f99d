"""A served model: a bundle's engines loaded, and the three calls that make pictures of requests.

``encode``, ``denoise`` and ``decode`` each make one engine call for a batch; who shares a batch is the caller's matter.
"""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.backend import Array, CompilesShapes, Engine, OffHost
from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.planner import Planner
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.prompts.encoder import TextEncoder
from mezzotint.engines.request import Request
from mezzotint.engines.safety import SafetyChecker
from mezzotint.engines.shapes import Uses
from mezzotint.engines.sizes import Size
from mezzotint.engines.variants import CHECK, FULL, PICTURE, TILE

EngineKey: TypeAlias = tuple[Component, str]
"""An engine's component and variant."""


class Model:
    """One bundle in memory.

    Args:
        manifest: what the bundle says of itself.
        digest: the bundle's digest, which names it in replies and pictures.
        prompts: its tokenizer and embedding table.
        engines: its engines by component and variant.
        max_rows: the most rows of one UNet call that gain something on this host, by variant.
        whole_pixels: the most pixels of a picture that is decoded whole, where there is an engine for tiles; None is
            any number.
    """

    def __init__(
        self,
        manifest: Manifest,
        digest: str,
        prompts: Prompts,
        engines: Mapping[EngineKey, Engine],
        max_rows: Mapping[str, int],
        whole_pixels: int | None = None,
    ) -> None:
        self.manifest = manifest
        self.digest = digest
        self.max_rows = max_rows
        self.prompts = prompts
        self.engines = engines
        place = partial(_at, engines[Component.UNET, FULL])  # with the text, all that the UNet is given
        self._encoder = TextEncoder(engines[Component.TEXT_ENCODER, FULL], prompts.embed, place)
        has_tiles = (Component.VAE_DECODER, TILE) in engines
        self._planner = Planner(manifest, digest, prompts, whole_pixels if has_tiles else None)
        self._checker = None
        if manifest.safety is not None:
            self._checker = SafetyChecker(engines[Component.SAFETY_CHECKER, FULL], manifest.safety)

    @property
    def name(self) -> str:
        """The bundle's name."""
        return self.manifest.name

    def start(self, request: Request) -> tuple[Image, ...]:
        """Check a request and return its images, ready to be encoded; runs no engine.

        Raises:
            InvalidRequest: a field is wrong.
            ShapeNotCompiled: the bundle has no engine of that size.
        """
        images = self._planner.images(request)
        self._encoder.layer_of(request.clip_skip)
        return images

    def warnings(self, request: Request) -> tuple[str, ...]:
        """Return a sentence for each thing that the request asked for and will not get."""
        return self._planner.warnings(request)

    def has_calls(self, key: EngineKey, size: Size) -> bool:
        """Whether an engine is called for pictures of a size: those in tiles have no call of the whole decoder."""
        return self._planner.has_calls(key, size)

    def encode(self, batch: Batch) -> None:
        """Encode the prompts of a batch, or then the pictures that it is painted on, and begin its images."""
        started = time.perf_counter()
        if batch.variant == PICTURE:
            self._encode_pictures(batch)
        else:
            self._encode_prompts(batch)
        _note(batch, Stage.ENCODE, started)

    def _encode_prompts(self, batch: Batch) -> None:
        """Encode each different chunk of the prompts once."""
        asked = [(image.rows, self._encoder.layer_of(image.request.clip_skip)) for image in batch.images]
        for image, text in zip(batch.images, self._encoder.encode(asked), strict=True):
            image.begin(text)

    def _encode_pictures(self, batch: Batch) -> None:
        """Encode what each image is painted on, once for those of one request."""
        engine = self.engines[Component.VAE_ENCODER, FULL]
        (taken,), (made,) = engine.spec.inputs, engine.spec.outputs
        canvases = {id(canvas.given): canvas.given for canvas in batch.canvases}
        rows = {key: given.to_encode() for key, given in canvases.items()}
        output = engine.run({taken.name: np.concatenate(list(rows.values()))})[made.name]
        moments = _at(self.engines[Component.UNET, FULL], output)
        ends = dict(zip(rows, np.cumsum([len(pixels) for pixels in rows.values()]).tolist(), strict=True))
        for image, canvas in zip(batch.images, batch.canvases, strict=True):
            end = ends[id(canvas.given)]
            image.begin_on(moments[end - canvas.given.num_encoded : end, ...], self.manifest.latents)

    def denoise(self, batch: Batch) -> Array:
        """Run the UNet once for a batch; returns float32 [num_rows, C, height, width]."""
        started = time.perf_counter()
        inputs = batch.inputs()
        device.wait(inputs["sample"])  # a device is given one call while it runs another, and no more
        outputs = self.engines[Component.UNET, batch.variant].run(inputs)
        batch.keep(outputs.get("feature"))
        _note(batch, Stage.DENOISE, started)
        return outputs["output"]

    def decode(self, batch: Batch) -> None:
        """Run the next engine of a batch's decoder: the last one leaves pixels on the host.

        Where the bundle has a safety checker, it looks at them in a call of its own.
        """
        started = time.perf_counter()
        if self._checker is not None and batch.variant == CHECK:
            batch.checked(self._checker.flags(batch.pixels()))
        else:
            self._decode(batch)
        _note(batch, Stage.DECODE, started)

    def _decode(self, batch: Batch) -> None:
        entry = self.manifest.latents
        engine = self.engines[Component.VAE_DECODER, batch.variant]
        given = {engine.spec.inputs[0].name: batch.to_decode(entry.scaling, entry.shift)}
        given |= batch.tile_inputs(engine.spec)
        outputs = engine.run({name: _at(engine, array) for name, array in given.items()})
        for i, image in enumerate(batch.images):
            image.decoded(*(outputs[made.name][i, ...] for made in engine.spec.outputs))

    def preview_rgb(self, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return a small picture, uint8 [height, width, 3], of latents float32 [C, height, width]; runs no engine."""
        fit = np.array(self.manifest.latents.preview, dtype=np.float32)
        rgb = np.tensordot(latents, fit[:-1], axes=([0], [0])) + fit[-1]
        return np.ascontiguousarray((np.clip(rgb, 0.0, 1.0) * 255).round().astype(np.uint8))

    def cache_uses(self) -> Mapping[str, Uses]:
        """Return how often plans, encoded text and the engines' compiled shapes were reused, by the cache's name."""
        shapes = [engine.shape_uses for engine in self.engines.values() if isinstance(engine, CompilesShapes)]
        return {
            "plans": self._planner.uses,
            "text": self._encoder.uses,
            "shapes": Uses(sum(uses.hits for uses in shapes), sum(uses.misses for uses in shapes)),
        }

    def close(self) -> None:
        """Free the engines, and what was kept of their results."""
        self._encoder.forget()
        for engine in self.engines.values():
            engine.close()

    def warm_up(self, *, at_once: int = 1) -> None:
        """Run every engine once at the size it was tuned at, with the fewest rows, which any call can be split into.

        ``at_once`` engines are compiled side by side, which fills the cores, but also holds the pages of as many
        weights files. The UNet is first: its file is the largest, and the others' memory is not there yet.
        """
        order = sorted(self.engines.items(), key=lambda item: item[0][0] is not Component.UNET)
        with ThreadPoolExecutor(at_once) as pool:
            for done in [pool.submit(self._prepare, engine, min(engine.row_counts)) for _, engine in order]:
                done.result()

    def warm_up_rest(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Prepare the row counts that ``warm_up`` left out, unless ``stopped``; may run while requests are served.

        Until one is ready its rows go through those that are, with the same result, bit for bit.
        """
        for engine in self.engines.values():
            for rows in sorted(engine.row_counts, reverse=True):
                if stopped():
                    return
                self._prepare(engine, rows)

    def _prepare(self, engine: Engine, rows: int) -> None:
        shapes = engine.spec.input_shapes(rows)
        engine.prepare({name: np.zeros(shape, dtype=np.float32) for name, shape in shapes.items()})


def _at(engine: Engine, array: Array) -> Array:
    """Return ``array`` where an engine takes it; between engines of one device nothing is copied."""
    return device.place(array, engine.like) if isinstance(engine, OffHost) else device.to_host(array)


def _note(batch: Batch, stage: Stage, started: float) -> None:
    ms = (time.perf_counter() - started) * 1e3
    for image in batch.images:
        image.stage_ms[stage] = image.stage_ms.get(stage, 0.0) + ms
