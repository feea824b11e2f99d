"""The samplers that are served, and the names they go by: ours, diffusers' classes, A1111's labels."""

from collections.abc import Mapping
from types import MappingProxyType

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Sampler
from mezzotint.engines.sampling.ddim import DDIM
from mezzotint.engines.sampling.dpmpp import DPMPP_2M
from mezzotint.engines.sampling.euler import EULER, EULER_A
from mezzotint.engines.sampling.heun import HEUN
from mezzotint.engines.schedule import SigmaSpacing

SAMPLERS: Mapping[str, Sampler] = MappingProxyType({s.name: s for s in (DDIM, EULER, EULER_A, HEUN, DPMPP_2M)})

NUM_KEPT = max(sampler.num_kept for sampler in SAMPLERS.values())
"""The kept arrays of every plan: the most that any sampler needs, so that a mixed batch has one shape."""

_KARRAS_SUFFIX = " karras"


def _spoken(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


_BY_NAME = {
    _spoken(alias): sampler
    for sampler in SAMPLERS.values()
    for alias in (sampler.name, sampler.label, sampler.diffusers, *sampler.aliases)
}


def get_sampler(name: str) -> tuple[Sampler, SigmaSpacing]:
    """Return the sampler of a name and the noise levels that the name asks for: Karras's for "DPM++ 2M Karras".

    Case does not matter, and ``_`` is a space.

    Raises:
        InvalidRequest: no sampler goes by that name.
    """
    spoken = _spoken(name)
    stem = spoken.removesuffix(_KARRAS_SUFFIX)
    sampler = _BY_NAME.get(stem)
    if sampler is None:
        known = ", ".join(SAMPLERS)
        raise InvalidRequest(f"sampler={name!r}: must be one of {known}, or their names in diffusers or A1111")
    return sampler, SigmaSpacing.AS_TRAINED if stem == spoken else SigmaSpacing.KARRAS
