"""Variations of a picture: its initial noise, turned some way towards another seed's. Imports noise and the errors."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.noise import MAX_SEED, NoiseStream

Noise = npt.NDArray[np.float32]

_TINY = np.float32(1e-30)  # noise that a client gives may be zeros
_PARALLEL = 0.9995  # the mean cosine from which on A1111 mixes and does not turn


@dataclass(frozen=True, slots=True)
class Variation:
    """How a request's pictures differ from that of its seed, under A1111's names.

    Attributes:
        subseed: 0 to 2**63 − 1, the seed whose noise they are turned towards.
        subseed_strength: 0 to 1, how far; 0 is off, and 1 is the subseed's own noise.
    """

    subseed: int = 0
    subseed_strength: float = 0.0

    def check(self, num_images: int) -> None:
        """Refuse what is no variation of so many pictures. Raises InvalidRequest."""
        if not 0 <= self.subseed_strength <= 1:
            raise InvalidRequest(
                f"subseed_strength={self.subseed_strength}: must be between 0 and 1; 0 is none, 0.1 a little"
            )
        most = MAX_SEED - num_images + 1
        if not 0 <= self.subseed <= most:
            raise InvalidRequest(f"subseed={self.subseed}: must be between 0 and {most}")

    def seeds(self, seed: int, index: int) -> tuple[int, int]:
        """Return the seed and the subseed of a request's i-th picture.

        The seeds count up; where there is a variation, the subseeds do and all pictures have the request's seed
        (A1111, ``modules/processing.py``).
        """
        return (seed, self.subseed + index) if self.subseed_strength else (seed + index, self.subseed)

    def vary(self, noise: Noise, index: int) -> Noise:
        """Return the initial noise of a request's i-th picture: float32 [C, height, width], like its seed's."""
        if not self.subseed_strength:
            return noise
        other = NoiseStream(self.subseed + index).normal((1, *noise.shape))[0]
        return slerp(self.subseed_strength, noise, other)


NO_VARIATION = Variation()


def slerp(share: float, low: Noise, high: Noise) -> Noise:
    """Turn float32 [C, height, width] by a share of the angle towards another one, each column of a channel by itself.

    A1111's ``slerp`` (``modules/rng.py``), whose vectors lie along the height. Where both are nearly parallel, which
    two seeds never are, it mixes with the shares the wrong way round; here they are the right way.
    """
    cosine = (low / _norm(low) * (high / _norm(high))).sum(axis=1, keepdims=True)
    if cosine.mean() > _PARALLEL:
        return low * np.float32(1 - share) + high * np.float32(share)
    angle = np.arccos(np.clip(cosine, -1.0, 1.0))
    parts = np.sin((1 - share) * angle) * low + np.sin(share * angle) * high
    return np.asarray(parts / np.maximum(np.sin(angle), _TINY), dtype=np.float32)


def _norm(noise: Noise) -> Noise:
    return np.asarray(np.maximum(np.linalg.norm(noise, axis=1, keepdims=True), _TINY))
