"""The samplers that are served, and the names they go by: ours, diffusers' classes, A1111's labels, k-diffusion's."""

from collections.abc import Mapping
from types import MappingProxyType

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.sampling.base import Sampler
from mezzotint.engines.sampling.consistency import LCM, TCD
from mezzotint.engines.sampling.ddim import DDIM
from mezzotint.engines.sampling.ddpm import DDPM
from mezzotint.engines.sampling.deis import DEIS
from mezzotint.engines.sampling.dpmpp import DPMPP_2M
from mezzotint.engines.sampling.dpmpp_sde import DPMPP_2M_SDE, DPMPP_3M_SDE
from mezzotint.engines.sampling.dpmpp_single import DPMPP_2S_A, DPMPP_SDE
from mezzotint.engines.sampling.euler import EULER, EULER_A
from mezzotint.engines.sampling.heun import HEUN
from mezzotint.engines.sampling.kdpm2 import KDPM2, KDPM2_A
from mezzotint.engines.sampling.lms import LMS
from mezzotint.engines.sampling.pndm import PLMS, PNDM
from mezzotint.engines.sampling.unipc import UNIPC, UNIPC_BH1
from mezzotint.engines.schedule import SigmaSpacing

_ALL = (
    *(DDIM, EULER, EULER_A, HEUN, DPMPP_2M, DPMPP_2M_SDE, DPMPP_3M_SDE, DPMPP_SDE, DPMPP_2S_A, UNIPC, UNIPC_BH1),
    *(DEIS, KDPM2, KDPM2_A, LMS, DDPM, PLMS, PNDM, LCM, TCD),
)
SAMPLERS: Mapping[str, Sampler] = MappingProxyType({sampler.name: sampler for sampler in _ALL})

NUM_KEPT = max(sampler.num_kept for sampler in SAMPLERS.values())
"""The kept arrays of every plan: the most that any sampler needs, so that a mixed batch has one shape."""

_PREFIXES = ("sample ", "k ")  # k-diffusion's functions, and A1111's short names for them
_SUFFIXES = {
    " karras": SigmaSpacing.KARRAS,
    " ka": SigmaSpacing.KARRAS,
    " exponential": SigmaSpacing.EXPONENTIAL,
    " exp": SigmaSpacing.EXPONENTIAL,
    " beta": SigmaSpacing.BETA,
    " automatic": SigmaSpacing.AUTOMATIC,
}


def _spoken(name: str) -> str:
    spoken = " ".join(name.lower().replace("_", " ").split())
    for prefix in _PREFIXES:
        spoken = spoken.removeprefix(prefix)
    return spoken


_BY_NAME: dict[str, Sampler] = {}
for _sampler in _ALL:
    for _name in (_sampler.name, _sampler.label, _sampler.diffusers, *_sampler.aliases):
        if _name:
            _BY_NAME.setdefault(_spoken(_name), _sampler)


def get_sampler(name: str, sigmas: str = "") -> tuple[Sampler, SigmaSpacing]:
    """Return the sampler of a name and its noise levels: Karras's for "DPM++ 2M Karras".

    Case does not matter, and ``_`` is a space. Of samplers that are settings of one diffusers class the first goes by
    its name. ``sigmas``, if any, is asked for beside the name and goes before what the name says.

    Raises:
        InvalidRequest: no sampler goes by that name, or there are no such levels.
    """
    spoken = _spoken(name)
    suffix = next((suffix for suffix in _SUFFIXES if spoken.endswith(suffix)), "")
    sampler = _BY_NAME.get(spoken.removesuffix(suffix))
    if sampler is None:
        known = ", ".join(SAMPLERS)
        raise InvalidRequest(f"sampler={name!r}: must be one of {known}, or their names in diffusers or A1111")
    if sigmas and sigmas not in set(SigmaSpacing):
        raise InvalidRequest(f"sigmas={sigmas!r}: must be one of {', '.join(SigmaSpacing)}, or empty")
    chosen = SigmaSpacing(sigmas) if sigmas else _SUFFIXES.get(suffix, SigmaSpacing.AS_TRAINED)
    return sampler, sampler.automatic if chosen is SigmaSpacing.AUTOMATIC else chosen


def sampler_of_class(name: str, settings: Mapping[str, object]) -> Sampler | None:
    """Return the sampler that is diffusers' class ``name`` with these settings, or None where none is.

    Of several the one that says most about the settings.
    """
    fitting = [
        sampler
        for sampler in _ALL
        if sampler.diffusers == name and all(settings.get(key) == value for key, value in sampler.settings.items())
    ]
    return max(fitting, key=lambda sampler: len(sampler.settings), default=None)
