"""Samplers: pure functions, the plans made of them, and ``advance``, which applies plans.

Knows numpy and the array API alone. A new sampler is one file beside ``euler.py`` and one name in ``registry.py``.
"""

from mezzotint.engines.sampling.base import Sampler
from mezzotint.engines.sampling.cut import noised, skipped_steps
from mezzotint.engines.sampling.plan import Plan, advance, plan
from mezzotint.engines.sampling.registry import NUM_KEPT, SAMPLERS, get_sampler, sampler_of_class

__all__ = [
    "NUM_KEPT",
    "SAMPLERS",
    "Plan",
    "Sampler",
    "advance",
    "get_sampler",
    "noised",
    "plan",
    "sampler_of_class",
    "skipped_steps",
]
