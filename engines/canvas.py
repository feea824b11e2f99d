"""An initial picture on its way through a picture's steps: what is encoded of it, what it begins as, and what stays.

All is drawn in the order of diffusers' ``StableDiffusionImg2ImgPipeline`` and ``StableDiffusionInpaintPipeline``, so
that the same seed gives the same picture. Array-API code: latents stay on the UNet's device. Knows no engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from mezzotint.engines import device
from mezzotint.engines.device import Array
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.initial_picture import grey, read_picture, resized
from mezzotint.engines.manifest import LatentEntry
from mezzotint.engines.noise import NoiseStream
from mezzotint.engines.sampling import Plan, noised
from mezzotint.engines.start import Start

Float32Array = npt.NDArray[np.float32]

MASK, MASKED = "mask", "masked_latents"
"""Inputs, and their roles, of UNets that were trained to inpaint: float32 [rows, 1, height, width] and [rows, C, …]."""

_WHITE = 128  # from here on, as diffusers rounds
_MIN_LOG_VARIANCE, _MAX_LOG_VARIANCE = -30.0, 20.0  # diffusers' DiagonalGaussianDistribution


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What the pictures of a request begin with; they share it.

    Attributes:
        picture: uint8 [H, W, 3], of the size that is painted.
        mask: bool [H, W], true where it is drawn anew; None is everywhere, and nothing of the picture is kept.
        feather: uint8 [H, W], how much of what was drawn is laid over the picture; None without a mask.
        strength: the request's.
        fills_in: whether the UNet takes the mask and the masked picture as inputs.
    """

    picture: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_] | None
    feather: npt.NDArray[np.uint8] | None
    strength: float
    fills_in: bool

    @property
    def from_noise(self) -> bool:
        """Whether it begins with noise alone: with a mask, at full strength, as in diffusers."""
        return self.mask is not None and self.strength == 1.0

    @property
    def num_encoded(self) -> int:
        """The rows of the encoder's call."""
        return 2 if self.fills_in and not self.from_noise else 1

    def to_encode(self) -> Float32Array:
        """Return the encoder's input, float32 [num_encoded, 3, H, W] in −1…1: the picture, and what the mask leaves."""
        pixels = self.picture.astype(np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1.0)
        if not self.fills_in or self.mask is None:
            return pixels[None]
        masked = np.where(self.mask, np.float32(0.0), pixels)
        return np.stack([pixels, masked][-self.num_encoded :])

    def laid_over(self, drawn: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return uint8 [H, W, 3]: what was drawn, over the picture, which is unchanged where the feather is 0."""
        if self.feather is None:
            return drawn
        top, ground = Image.fromarray(drawn), Image.fromarray(self.picture)
        return np.asarray(Image.composite(top, ground, Image.fromarray(self.feather)))


def read_given(start: Start, size: tuple[int, int], *, fills_in: bool) -> Given | None:
    """Read what a request begins with; None where that is noise alone.

    A UNet that fills in a mask takes one in any case: without a picture everything is drawn anew, over a grey one.

    Args:
        start: the request's.
        size: (height, width) of what is painted, in pixels.
        fills_in: whether the UNet takes the mask as an input.

    Raises:
        InvalidRequest: a file cannot be read, the mask has another size than the picture, or nothing white.
    """
    everywhere = np.ones(size, dtype=np.bool_) if fills_in else None
    if not start.is_given:
        blank = np.zeros((*size, 3), dtype=np.uint8)
        return Given(blank, everywhere, None, 1.0, fills_in) if fills_in else None
    picture = read_picture("image", start.image)
    pixels = np.asarray(resized(picture, size, start.mode))
    if not start.mask:
        return Given(pixels, everywhere, None, start.strength, fills_in)
    mask = read_picture("mask", start.mask)
    if mask.size != picture.size:
        raise InvalidRequest(
            f"mask: is {mask.width}x{mask.height}, but the image is {picture.width}x{picture.height}; "
            "send a mask of the image's size"
        )
    white = grey(resized(mask, size, start.mode)) >= _WHITE
    if not white.any():
        raise InvalidRequest("mask: has nothing white, so nothing would be drawn; make white what is to be drawn anew")
    return Given(pixels, white, _feathered(white, start.mask_blur), start.strength, fills_in)


def _feathered(mask: npt.NDArray[np.bool_], blur: float) -> npt.NDArray[np.uint8]:
    hard = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(hard.filter(ImageFilter.GaussianBlur(blur)) if blur else hard)


@dataclass(slots=True, eq=False)
class Canvas:
    """One picture's own part of it.

    Attributes:
        given: what it shares with the others of its request.
        clean: float32 [C, height, width], the initial picture's latents, where a mask keeps some of it.
        noise: float32 [C, height, width], what those are noised with at every step.
        mask: bool [1, height, width] where a mask keeps latents, float32 where the UNet takes it.
        masked: float32 [C, height, width], the latents of what the mask leaves of the picture, for that UNet.
    """

    given: Given
    clean: Array | None = None
    noise: Array | None = None
    mask: Array | None = None
    masked: Array | None = None

    def begin(
        self,
        moments: Array,
        entry: LatentEntry,
        stream: NoiseStream,
        first_noise: Callable[[], Float32Array],
        plan: Plan,
    ) -> Array:
        """Return the first sample, float32 [C, height, width].

        Args:
            moments: float32 [num_encoded, 2C, height, width], what the encoder made of ``Given.to_encode``.
            entry: the space of latents.
            stream: the picture's own noise, of which latents are drawn.
            first_noise: gives what noise alone would begin with, float32 [C, height, width] on the host.
            plan: of the steps that are made.
        """
        given = self.given
        shape = (1, entry.channels, *moments.shape[-2:])

        def drawn() -> Array:
            return device.from_host(stream.normal(shape)[0], moments)

        clean = None
        if not (given.fills_in and given.from_noise):
            clean = _latents(moments[0, ...], drawn(), entry)
        noise = device.from_host(first_noise(), moments)
        if given.mask is not None:
            other = drawn()  # diffusers encodes what the mask leaves in any case
            small = given.mask[None, :: entry.factor, :: entry.factor]
            if given.fills_in:
                self.masked = _latents(moments[moments.shape[0] - 1, ...], other, entry)
                self.mask = device.from_host(small.astype(np.float32), moments)
            else:
                self.clean, self.noise, self.mask = clean, noise, device.from_host(np.ascontiguousarray(small), moments)
        if clean is None or given.from_noise:
            return noise * float(plan.initial_scale)
        return noised(clean, noise, plan)

    def kept(self, sample: Array, plan: Plan, evaluation: int) -> Array:
        """Return a sample before an evaluation with what the mask keeps put in its place: the picture, noised alike."""
        if self.clean is None:
            return sample
        return device.xp(sample).where(self.mask, sample, noised(self.clean, self.noise, plan, evaluation))


def mask_inputs(canvases: Sequence[Canvas], owner: Array) -> dict[str, Array]:
    """Return what a UNet takes that fills in a mask: each row has its owner's; nothing where it takes none."""
    if not canvases or not canvases[0].given.fills_in:
        return {}
    xp = device.xp(owner)
    each = {MASK: [canvas.mask for canvas in canvases], MASKED: [canvas.masked for canvas in canvases]}
    return {name: xp.take(xp.stack(arrays), owner, axis=0) for name, arrays in each.items()}


def _latents(moments: Array, noise: Array, entry: LatentEntry) -> Array:
    """Draw latents of the encoder's mean and log variance, float32 [2C, height, width], scaled as they are denoised."""
    xp = device.xp(moments)
    mean = moments[: entry.channels, ...]
    log_variance = xp.clip(moments[entry.channels :, ...], _MIN_LOG_VARIANCE, _MAX_LOG_VARIANCE)
    return (mean + xp.exp(log_variance * 0.5) * noise - entry.shift) * entry.scaling
