"""Each image's own stream of gaussian noise, equal to torch's CPU generator of the same seed: same seed, same picture.

Imports numpy and the errors. torch's algorithms: aten/src/ATen/native/cpu/DistributionTemplates.h (``normal_fill``) and
aten/src/ATen/core/DistributionsHelper.h (``normal_distribution``).
"""

import math

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import InvalidRequest

MAX_SEED = 2**63 - 1
_BLOCK = 16  # torch's vectorised path makes 16 normals of 16 uniforms; fewer values take its scalar path


class NoiseStream:
    """The normals of one seed, drawn one after the other; each draw goes on where the last one ended.

    Args:
        seed: 0 to 2**63 − 1; like torch's Mersenne twister it takes the low 32 bits.

    Raises:
        InvalidRequest: the seed is out of range.
    """

    __slots__ = ("_spare", "_words")

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= MAX_SEED:
            raise InvalidRequest(f"seed={seed}: must be between 0 and {MAX_SEED}")
        # numpy guarantees RandomState's stream for ever; a full-range uint32 is one raw word of the twister
        self._words = np.random.RandomState(seed & 0xFFFFFFFF)
        self._spare: float | None = None

    def normal(self, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """Return float32 normals of ``shape``, within 1e-5 of what torch.randn draws next from a CPU generator."""
        count = math.prod(shape)
        if count < _BLOCK:
            return np.array([self._next_normal() for _ in range(count)], dtype=np.float32).reshape(shape)
        num_whole, num_left = divmod(count, _BLOCK)
        uniforms = self._uniforms(count)
        normals = np.empty(count, dtype=np.float32)
        normals[: num_whole * _BLOCK] = _box_muller(uniforms[: num_whole * _BLOCK])
        if num_left:  # the last 16 values are made again from fresh uniforms
            normals[-_BLOCK:] = _box_muller(self._uniforms(_BLOCK))
        return normals.reshape(shape)

    def _raw(self, count: int) -> npt.NDArray[np.uint32]:
        return self._words.randint(0, 2**32, size=count, dtype=np.uint32)

    def _uniforms(self, count: int) -> npt.NDArray[np.float32]:
        return (self._raw(count) & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)

    def _next_normal(self) -> float:
        """Return a normal of torch's scalar path, which makes two and keeps the second whatever is drawn between."""
        if self._spare is not None:
            normal, self._spare = self._spare, None
            return normal
        high1, low1, high2, low2 = self._raw(4).tolist()
        u1 = ((high1 << 32 | low1) & (2**53 - 1)) * 2.0**-53
        u2 = ((high2 << 32 | low2) & (2**53 - 1)) * 2.0**-53
        radius, angle = math.sqrt(-2.0 * math.log1p(-u2)), 2.0 * math.pi * u1
        self._spare = radius * math.sin(angle)
        return radius * math.cos(angle)


def _box_muller(uniforms: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Turn float32 uniforms of [0, 1) into normals: in blocks of 16, eight radii and eight angles make 16 values."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - blocks[:, 0]))
    angle = np.float32(2.0 * math.pi) * blocks[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
