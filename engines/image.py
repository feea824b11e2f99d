"""A picture in the making, at its own step of its own plan.

Array-API code: latents stay on the engine's device between steps and are never read back. Knows no engine.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.canvas import Canvas
from mezzotint.engines.device import Array
from mezzotint.engines.evaluations import UNetCall
from mezzotint.engines.manifest import LatentEntry
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.prompts.encoder import Text
from mezzotint.engines.prompts.rows import Row
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import NUM_KEPT, Plan, noised
from mezzotint.engines.second_walk import SecondWalk
from mezzotint.engines.tiles import Tiles
from mezzotint.engines.variants import CHECK, FULL, PICTURE


class Stage(StrEnum):
    """The kind of engine call that an image waits for next."""

    ENCODE = "encode"
    DENOISE = "denoise"
    DECODE = "decode"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Image:
    """One picture from noise to pixels.

    Attributes:
        index: its place in its request.
        seed: the request's + index, or the request's own where there is a variation.
        rows: what each of its rows says; where a call takes fewer, it is the last ones.
        calls: what each of the plan's model evaluations calls.
        decoder: the engines that decode it, one after the other, by variant.
        noise: its own stream; nobody else draws from it.
        shape: (C, height, width) of its latents.
        bundle: the digest of the bundle whose engines make it.
        guidance: float32 [width], the guidance of models that take it as an input.
        has_check: whether a safety checker looks at it when it is decoded.
        then: the walk that follows, where hires fix enlarges it; None once it has begun.
        num_before: the steps of the walk before that.
        is_alone: whether it shares no denoising call, since one that it shared has failed.
        canvas: the initial picture that it is painted on; None where it begins with noise.
        evaluation: how many of the plan's model evaluations are done.
        part: how many of the decoder's engines have run.
        state: float32 [1 + NUM_KEPT, C, height, width], sample and kept arrays; None until it has been encoded.
        text: what the text encoder made of each text of ``rows``: float32 [tokens, width].
        feature: float32 [rows, C', height, width], what its last full call left for the shallow calls that follow.
        tiles: those that it is decoded in, where it is too large to be decoded whole.
        hidden: float32 [C', height', width'], what the decoder's last engine left for the next.
        latents: float32 [C, height, width], the final sample, once decoded.
        pixels: uint8 [H, W, 3] on the host, once decoded.
        preview: float32 [C, height, width] on the host, the latest prediction of the clean latents, if asked for.
        flagged: what the safety checker says of the pixels; None where none has looked.
    """

    request: Request
    index: int
    seed: int
    plan: Plan
    rows: tuple[Row, ...]
    calls: tuple[UNetCall, ...]
    decoder: tuple[str, ...]
    noise: NoiseStream
    shape: tuple[int, int, int]
    bundle: str
    guidance: npt.NDArray[np.float32] | None = None
    has_check: bool = False
    canvas: Canvas | None = None
    then: SecondWalk | None = None
    num_before: int = 0
    is_alone: bool = False
    stage: Stage = Stage.ENCODE
    evaluation: int = 0
    part: int = 0
    state: Array | None = None
    text: Text | None = None
    feature: Array | None = None
    tiles: Tiles | None = None
    hidden: Array | None = None
    latents: npt.NDArray[np.float32] | None = None
    pixels: npt.NDArray[np.uint8] | None = None
    preview: npt.NDArray[np.float32] | None = None
    flagged: bool | None = None
    stage_ms: dict[str, float] = field(default_factory=dict)

    @property
    def call(self) -> UNetCall:
        """What its next model evaluation calls."""
        return self.calls[self.evaluation]

    @property
    def num_rows(self) -> int:
        """The rows that it takes in its next call."""
        match self.stage:
            case Stage.ENCODE if self.canvas is not None and self.text is not None:
                return self.canvas.given.num_encoded
            case Stage.ENCODE:
                return len(self.rows)
            case Stage.DENOISE:
                return len(self.call.weights)
            case _:
                return 1

    @property
    def variant(self) -> str:
        """The variant of the engine that its next call runs on."""
        match self.stage:
            case Stage.DENOISE:
                return self.call.variant
            case Stage.ENCODE if self.text is not None:
                return PICTURE
            case Stage.DECODE:
                return self.decoder[self.part] if self.pixels is None else CHECK
            case _:
                return FULL

    @property
    def has_begun(self) -> bool:
        """Whether a call was made for it: from then on it holds arrays, though it may wait to be encoded again."""
        return self.stage is not Stage.ENCODE or self.text is not None

    @property
    def remaining(self) -> int:
        """The model evaluations that are left."""
        later = 0 if self.then is None else self.then.plan.num_evaluations
        return self.plan.num_evaluations - self.evaluation + later

    @property
    def num_steps(self) -> int:
        """The steps that it takes in all, over both walks where there are two."""
        return self.num_before + self.plan.num_steps + (0 if self.then is None else self.then.plan.num_steps)

    @property
    def step(self) -> int:
        """Those of them that are complete."""
        return self.num_before + (int(self.plan.steps[self.evaluation - 1]) if self.evaluation else 0)

    @property
    def signature(self) -> Hashable:
        """What its next call must have in common with another image's to share it: everything but the rows."""
        match self.stage:
            case Stage.ENCODE if self.text is None:
                return (self.bundle, self.stage)
            case Stage.DENOISE:
                own = id(self) if self.is_alone else None
                return (self.bundle, self.stage, self.variant, self.shape, self.rows[0].num_tokens, own)
            case Stage.DECODE:
                return (self.bundle, self.stage, self.variant, self.decoded_size)
            case _:
                return (self.bundle, self.stage, self.variant, self.shape)

    @property
    def call_size(self) -> tuple[int, int] | None:
        """The latent rows and columns of its next call; None where it encodes text."""
        match self.stage:
            case Stage.ENCODE if self.text is None:
                return None
            case Stage.DECODE:
                return self.decoded_size
            case _:
                return self.shape[1:]

    @property
    def decoded_size(self) -> tuple[int, int]:
        """The latent rows and columns of its decoder's calls."""
        return self.shape[1:] if self.tiles is None else self.tiles.tiling.tile

    def begin(self, text: Text) -> None:
        """Take the encoded prompts and the initial noise, and wait for the first step; on a canvas for its encoder."""
        self.text = text
        if self.canvas is not None:
            return
        state = np.zeros((1 + NUM_KEPT, *self.shape), dtype=np.float32)
        state[0] = self.first_noise() * np.float32(self.plan.initial_scale)
        self.state = device.from_host(state, text[0][0])
        self.stage = Stage.DENOISE

    def begin_on(self, moments: Array, entry: LatentEntry) -> None:
        """Take what the VAE's encoder made of the canvas, float32 [rows, 2C, height, width], and wait for a step."""
        if self.canvas is None:
            raise ValueError(f"image {self.index} has no canvas; it begins with noise")
        self._set_off(self.canvas.begin(moments, entry, self.noise, self.first_noise, self.plan))

    def walked(self) -> None:
        """Go on from the last sample of a walk: to be decoded, or enlarged to walk again."""
        if self.then is None or self.then.from_pixels or self.state is None:
            self.stage = Stage.DECODE
            return
        clean = self.then.enlarged(self.state[0, ...])
        self._walk_again()
        self._set_off(noised(clean, device.from_host(self.first_noise(), clean), self.plan))

    def _walk_again(self) -> None:
        """Take up the walk that follows: it draws from the seed anew, at its own size."""
        then, self.then = self.then, None
        if then is None:
            raise ValueError(f"image {self.index} has no second walk; decode it")
        self.num_before += self.plan.num_steps
        self.plan, self.calls, self.shape, self.decoder = then.plan, then.calls, then.shape, then.decoder
        self.tiles = None if then.tiling is None else Tiles(then.tiling)
        self.noise = NoiseStream(self.seed)
        self.evaluation = self.part = 0
        self.state = self.feature = self.hidden = None

    def _set_off(self, sample: Array) -> None:
        """Wait for a walk's first step with its first sample, float32 [C, height, width]."""
        kept = device.from_host(np.zeros((NUM_KEPT, *self.shape), dtype=np.float32), sample)
        xp = device.xp(sample)
        self.state = xp.concat([xp.expand_dims(sample, axis=0), kept])
        self.stage = Stage.DENOISE

    def first_noise(self) -> npt.NDArray[np.float32]:
        """Return the unit noise that a walk begins with, float32 [C, height, width]."""
        given = None if self.num_before else self.request.latents
        noise: npt.NDArray[np.float32]
        noise = self.noise.normal((1, *self.shape))[0] if given is None else given[self.index]
        return self.request.variation.vary(noise, self.index)

    def texts(self) -> list[Array]:
        """Return what each row of its next call says at this step: float32 [tokens, width]."""
        said = list(zip(self.rows, self.text or (), strict=True))
        return [states[row.at(self.step)] for row, states in said[-self.num_rows :]]

    def decoded(self, output: Array, statistics: Array | None = None) -> None:
        """Take what one of the decoder's engines made: the last one's is pixels, float32 [3, H, W] in −1…1.

        A tile's comes with what its norms measured.
        """
        if self.tiles is not None:
            self.tiles.take(self.part, output, statistics)
        self.part += 1
        if self.part < len(self.decoder):
            self.hidden = device.copied(output) if self.tiles is None else None
            return
        pixels = to_uint8(device.to_host(output) if self.tiles is None else self.tiles.blended())
        if self.then is not None:
            self.canvas = self.then.canvas(pixels)
            self._walk_again()
            self.stage = Stage.ENCODE
            return
        self.pixels = pixels if self.canvas is None else self.canvas.given.laid_over(pixels)
        if self.state is not None and self.request.return_latents:
            self.latents = device.to_host(device.copied(self.state[0, ...]))
        self.state = self.text = self.hidden = self.canvas = self.tiles = None
        self.stage = Stage.DECODE if self.has_check else Stage.DONE


def to_uint8(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Turn float32 [3, H, W] in −1…1 into uint8 [H, W, 3], rounded as diffusers does."""
    unit = np.clip(pixels / 2 + 0.5, 0.0, 1.0)
    return np.ascontiguousarray((unit * 255).round().astype(np.uint8).transpose(1, 2, 0))
