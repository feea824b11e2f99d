"""A batch of pictures in the making: the inputs of one engine call for all, and what they take from its outputs.

Array-API code: latents stay on the engine's device between steps and are never read back. Knows no engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.canvas import Canvas, mask_inputs
from mezzotint.engines.device import Array
from mezzotint.engines.guidance import GUIDANCE
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.manifest import INNER, EngineEntry
from mezzotint.engines.sampling import advance
from mezzotint.engines.tiles import Tiles
from mezzotint.engines.variants import SHALLOW, TILE


@dataclass(frozen=True)
class Batch:
    """Images whose next call has one signature, in the order of their rows."""

    images: tuple[Image, ...]

    @property
    def stage(self) -> Stage:
        """The call that they wait for."""
        return self.images[0].stage

    @property
    def variant(self) -> str:
        """The variant of the engine that they wait for."""
        return self.images[0].variant

    @property
    def num_rows(self) -> int:
        """The rows of the call."""
        return sum(image.num_rows for image in self.images)

    @cached_property
    def state(self) -> Array:
        """float32 [num_images, 1 + NUM_KEPT, C, height, width]."""
        states = [image.state for image in self.images]
        return device.xp(states[0]).stack(states)

    @property
    def canvases(self) -> list[Canvas]:
        """What its images are painted on, of those that begin with a picture."""
        return [image.canvas for image in self.images if image.canvas is not None]

    @property
    def weights(self) -> Sequence[Sequence[float]]:
        """Each image's row weights."""
        return [image.call.weights for image in self.images]

    def inputs(self) -> dict[str, Array]:
        """Return the UNet's inputs: each image's scaled sample once for each of its rows, its timestep and text.

        A shallow call also takes each row's feature. A call of fewer rows than an image has takes the last ones.
        """
        plans = [(image.plan, image.evaluation) for image in self.images]
        num_rows = np.array([image.num_rows for image in self.images])
        scales = np.array([plan.input_scales[e] for plan, e in plans], dtype=np.float32)
        timesteps = np.array([plan.timesteps[e] for plan, e in plans], dtype=np.float32)
        xp = device.xp(self.state)
        scaled = self.state[:, 0, ...] * device.from_host(scales[:, None, None, None], self.state)
        owner = device.from_host(np.repeat(np.arange(len(self.images)), num_rows), self.state)
        inputs = {
            "sample": xp.take(scaled, owner, axis=0),
            "timestep": device.from_host(np.repeat(timesteps, num_rows), self.state),
            "text": xp.stack([states for image in self.images for states in image.texts()]),
        }
        given = [image.guidance for image in self.images if image.guidance is not None]
        if given:
            inputs[GUIDANCE] = device.from_host(np.repeat(np.stack(given), num_rows, axis=0), self.state)
        inputs |= mask_inputs(self.canvases, owner)
        if self.variant == SHALLOW:
            inputs["feature"] = xp.concat([_last(image.feature, image.num_rows) for image in self.images])
        return inputs

    def keep(self, feature: Array | None) -> None:
        """Keep each image's rows of a full call's feature where its next call is shallow, and let go of others.

        ``feature`` is float32 [num_rows, C', height, width], or None after a shallow call, which makes none.
        """
        first = 0
        for image in self.images:
            last = first + image.num_rows
            if not image.call.keeps:
                image.feature = None
            elif feature is not None:
                image.feature = device.copied(feature[first:last, ...])
            first = last

    def to_decode(self, scaling: float, shift: float) -> Array:
        """Return the input of the decoder's next engine: the scaled final samples, or what the last engine left.

        Of pictures in tiles it is each one's next tile.
        """
        if self.variant == TILE:
            tiles = [tiles.latents(sample, part) for tiles, sample, part in self._tiles()]
            return device.xp(tiles[0]).stack(tiles) / scaling + shift
        if not self.images[0].part:
            return self.state[:, 0, ...] / scaling + shift
        hidden = [image.hidden for image in self.images]
        return device.xp(hidden[0]).stack(hidden)

    def tile_inputs(self, spec: EngineEntry) -> dict[str, Array]:
        """Return what the norms of an engine for tiles take of the pictures' next tiles; nothing of other engines."""
        found = {}
        for tensor in spec.inputs[1:]:
            num = int(tensor.axes[-1])
            each = [t.inner(like) if tensor.role == INNER else t.given(num, like) for t, like, _ in self._tiles()]
            found[tensor.name] = device.xp(each[0]).stack([device.place(array, each[0]) for array in each])
        return found

    def _tiles(self) -> list[tuple[Tiles, Array, int]]:
        """Return the tiles, the final sample and the next call of each picture that is decoded so."""
        return [
            (image.tiles, image.state[0, ...], image.part)
            for image in self.images
            if image.tiles is not None and image.state is not None
        ]

    def pixels(self) -> list[npt.NDArray[np.uint8]]:
        """Return the pictures that are decoded."""
        return [image.pixels for image in self.images if image.pixels is not None]

    def checked(self, flags: Sequence[bool]) -> None:
        """Take what the safety checker says of ``pixels``."""
        for image, flagged in zip(self.images, flags, strict=True):
            image.flagged = flagged
            image.stage = Stage.DONE

    def advance(self, guided: Array) -> None:
        """Take every image one evaluation on: ``guided`` is float32 [num_images, C, height, width]."""
        entries = [(image.plan, image.evaluation) for image in self.images]
        coefficients = np.stack([plan.coefficients[e] for plan, e in entries])
        self._preview(guided)
        state = advance(self.state, guided, self._noise(), coefficients)
        for i, image in enumerate(self.images):
            if image.canvas is not None:
                state[i, 0, ...] = image.canvas.kept(state[i, 0, ...], image.plan, image.evaluation + 1)
            image.state = state[i, ...]
            image.evaluation += 1
            if image.evaluation == image.plan.num_evaluations:
                image.walked()

    def _noise(self) -> Array | None:
        needs = [bool(image.plan.needs_noise[image.evaluation]) for image in self.images]
        if not any(needs):
            return None
        shape = self.images[0].shape
        zeros = np.zeros(shape, dtype=np.float32)
        drawn = [
            image.noise.normal((1, *shape))[0] if n else zeros for image, n in zip(self.images, needs, strict=True)
        ]
        return device.from_host(np.stack(drawn), self.state)

    def _preview(self, guided: Array) -> None:
        """Read back the predicted clean latents of the images that asked for a preview after this step."""
        for i, image in enumerate(self.images):
            every = image.request.preview_every
            done = image.num_before + int(image.plan.steps[image.evaluation])
            image.preview = None
            if every and done > image.step and done % every == 0:
                of_sample, of_output = (float(c) for c in image.plan.denoised[image.evaluation])
                clean = self.state[i, 0, ...] * of_sample + guided[i, ...] * of_output
                image.preview = device.to_host(clean)


def _last(rows: Array, count: int) -> Array:
    return rows[rows.shape[0] - count :, ...]
