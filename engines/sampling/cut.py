"""Beginning in the middle: how many of a run's first steps a strength skips, and clean latents noised for those left.

``plan(…, num_skipped=…)`` is then a run of its own, without history. Array-API code; draws no random numbers.
"""

import math

import numpy as np

from mezzotint.engines import device
from mezzotint.engines.device import Array
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.plan import Plan


def skipped_steps(num_steps: int, strength: float) -> int:
    """Return how many of ``num_steps`` are left out at a strength of 0…1, where 1 makes all of them.

    As in diffusers' ``StableDiffusionImg2ImgPipeline.get_timesteps``, the steps that are made are rounded down.

    Raises:
        InvalidRequest: the strength is out of range, or leaves no step.
    """
    if num_steps < 1:
        raise InvalidRequest(f"steps={num_steps}: must be at least 1")
    if not 0 <= strength <= 1:
        raise InvalidRequest(f"strength={strength}: must be between 0 and 1; 0.8 is usual, and 1 keeps the least")
    num_made = min(int(num_steps * strength), num_steps)
    if not num_made:
        least = math.ceil(1 / num_steps * 100) / 100
        raise InvalidRequest(
            f"strength={strength:g}: leaves none of {num_steps} steps; use {least:g} or more, or more steps"
        )
    return num_steps - num_made


def noised(clean: Array, noise: Array, plan: Plan, evaluation: int = 0) -> Array:
    """Return the sample that a plan's evaluation begins with, where ``clean`` is what it should end as.

    Both are float32 of one shape on one device; ``noise`` is unit gaussian. At the plan's end that is ``clean`` itself.
    """
    signal, level = plan.levels[evaluation]
    scale = device.from_host(np.array([signal, level], dtype=np.float32), clean)
    return clean * scale[0] + noise * scale[1]
