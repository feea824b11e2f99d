"""Hires fix: a picture painted small, enlarged, and denoised again, as one request (A1111's ``Hires. fix``).

A model paints well at about the size that it was trained at. What it painted there is enlarged, as latents or as
pixels, noised to the level of a strength, and denoised at the new size by a second walk of the same sampler.
"""

from dataclasses import dataclass

from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest, ShapeNotCompiled
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.variants import FULL, has_variant

LATENT, LANCZOS = "latent", "lanczos"
UPSCALERS = (LATENT, LANCZOS)

_MAX_SCALE = 16.0
_FULL_STRENGTH = 0.999  # A1111 divides by no more


@dataclass(frozen=True, slots=True)
class Hires:
    """What a request asks for.

    Attributes:
        hires_scale: how many times as wide and high the picture becomes; sides are rounded down to what the model can
            take. 0 is off.
        hires_steps: those of the second walk that are made; 0 is as many as the first walk has.
        hires_strength: above 0 to 1, how much is drawn anew: the second walk are the last ``hires_steps`` of
            ``hires_steps / hires_strength`` steps, as in A1111.
        hires_upscaler: ``latent`` enlarges the latents linearly, and empty is that; ``lanczos`` decodes, enlarges the
            pixels by Lanczos's filter and encodes them again, which takes a decode and an encode more.
    """

    hires_scale: float = 0.0
    hires_steps: int = 0
    hires_strength: float = 0.7
    hires_upscaler: str = ""

    @property
    def upscaler(self) -> str:
        """What enlarges the picture."""
        return self.hires_upscaler or LATENT

    def __bool__(self) -> bool:
        """Whether there is a second walk."""
        return bool(self.hires_scale)

    def size(self, height: int, width: int, multiple: int) -> tuple[int, int]:
        """Return the (height, width) that a picture becomes, in pixels. Raises InvalidRequest."""
        self._check_scale()
        enlarged = (int(side * self.hires_scale) // multiple * multiple for side in (height, width))
        return next(enlarged), next(enlarged)

    def num_made(self, steps: int) -> int:
        """Return the steps that the second walk makes, where the first has ``steps``."""
        return self.hires_steps or steps

    def walk(self, steps: int) -> tuple[int, int]:
        """Return (steps, those of them that are left out) of the second walk, where the first has ``steps``."""
        made = self.num_made(steps)
        total = int(made / min(self.hires_strength, _FULL_STRENGTH))
        return total, total - made

    def check(self, steps: int, size: tuple[int, int], manifest: Manifest) -> None:
        """Refuse what is no second walk after one of so many steps, of a picture of (height, width) pixels.

        Raises:
            InvalidRequest: a field is out of range, or the bundle has no engine for it.
            ShapeNotCompiled: the bundle was not built for what the picture becomes.
        """
        most_steps = manifest.schedule.num_train_timesteps
        self._check_scale()
        if self.hires_upscaler and self.hires_upscaler not in UPSCALERS:
            raise InvalidRequest(
                f"hires_upscaler={self.hires_upscaler!r}: must be one of {', '.join(UPSCALERS)}, or empty"
            )
        if not 0 <= self.hires_steps <= most_steps:
            raise InvalidRequest(
                f"hires_steps={self.hires_steps}: must be between 0 and {most_steps}; 0 is as many as steps"
            )
        if not 0 < self.hires_strength <= 1:
            raise InvalidRequest(
                f"hires_strength={self.hires_strength:g}: must be above 0 and at most 1; 0.7 is usual, less keeps more"
            )
        if not self:
            return
        total = self.num_made(steps) / min(self.hires_strength, _FULL_STRENGTH)
        if total >= most_steps + 1:
            raise InvalidRequest(
                f"hires_strength={self.hires_strength:g}: {self.num_made(steps)} steps at it are the last of "
                f"{total:.0f}, but this model has {most_steps}; use fewer hires_steps, or more strength"
            )
        if self.hires_upscaler == LANCZOS and not has_variant(manifest, Component.VAE_ENCODER, FULL):
            raise InvalidRequest(
                f"hires_upscaler={LANCZOS!r}: bundle {manifest.name} has no {Component.VAE_ENCODER} engine to read the "
                f"enlarged picture with; use {LATENT}, or compile it again"
            )
        self._check_size(size, manifest)

    def _check_scale(self) -> None:
        if self.hires_scale and not 1 <= self.hires_scale <= _MAX_SCALE:
            raise InvalidRequest(
                f"hires_scale={self.hires_scale:g}: must be between 1 and {_MAX_SCALE:g}; 2 is usual, 0 is off"
            )

    def _check_size(self, size: tuple[int, int], manifest: Manifest) -> None:
        latents, axes = manifest.latents, manifest.engine(Component.UNET).axes
        for side, length, becomes in zip(
            ("height", "width"), size, self.size(*size, latents.size_multiple), strict=True
        ):
            built = axes[side]
            if becomes // latents.factor not in built:
                raise ShapeNotCompiled(
                    f"hires_scale={self.hires_scale:g}: makes a {side} of {becomes} out of {length}, but bundle "
                    f"{manifest.name} was built for {built.text(latents.factor)}; use "
                    f"another scale, or compile again with `--{side} {length}:{length}:{becomes}`"
                )


NO_HIRES = Hires()
"""No second walk."""
