"""What a request may bring in the place of what is made for it: noise, a text encoder's states, noise levels.

Checks of shapes and values, by the name of the field; imports the manifest and the rows' chunks.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.prompts.rows import max_chunks

Float32Array = npt.NDArray[np.float32]

MIN_SIGMA, MAX_SIGMA = 1e-4, 1e4  # well around what any schedule has, and far from where float32 ends
_LEAST_FALL = 1e-6  # of a level below the one before; solvers divide by the difference of their logarithms


def check_array(field: str, array: Float32Array | None, shape: tuple[int, ...]) -> None:
    """Refuse what is not float32 of this shape, or not finite; None is nothing to refuse. Raises InvalidRequest."""
    if array is None:
        return
    if array.shape != shape or array.dtype != np.float32:
        raise InvalidRequest(f"{field}: is {array.dtype} {list(array.shape)}; must be float32 {list(shape)}")
    if not np.isfinite(array).all():
        raise InvalidRequest(f"{field}: has values that are not finite; send numbers")


def check_states(field: str, states: Float32Array | None, manifest: Manifest) -> None:
    """Refuse states of anything but whole chunks, as many as the bundle was built for. Raises InvalidRequest."""
    if states is not None:
        num_chunks = len(states) // manifest.text.max_tokens if states.ndim else 0
        count = max(1, min(num_chunks, max_chunks(manifest)))
        check_array(field, states, (count * manifest.text.max_tokens, manifest.text.width))


def check_sigmas(sigmas: Sequence[float], num_steps: int) -> None:
    """Refuse noise levels that no sampler can step along; none at all is none of one's own. Raises InvalidRequest."""
    if sigmas and len(sigmas) != num_steps:
        raise InvalidRequest(
            f"custom_sigmas: has {len(sigmas)} levels; must have one for each of the {num_steps} steps"
        )
    falls = all(b <= a * (1 - _LEAST_FALL) for a, b in itertools.pairwise(sigmas))
    if any(not math.isfinite(s) or s <= 0 for s in sigmas) or not falls:
        rule = f"each lower than the last by {_LEAST_FALL:g} of it or more"
        raise InvalidRequest(f"custom_sigmas: must be positive, finite, and {rule}; leave out the last 0")
    if sigmas and not MIN_SIGMA <= sigmas[-1] <= sigmas[0] <= MAX_SIGMA:
        raise InvalidRequest(
            f"custom_sigmas: go from {sigmas[0]:g} to {sigmas[-1]:g}; must be between {MIN_SIGMA:g} and {MAX_SIGMA:g}"
        )
