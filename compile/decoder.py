"""Into how many engines the VAE decoder is cut: a decode should not keep other pictures' steps waiting for long.

The limit is twice the time of a guided UNet call, both measured where the compiler runs, at the size that is tuned for.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise

from mezzotint.compile.job import CompileJob
from mezzotint.compile.maker import Candidate, Maker
from mezzotint.compile.stages import Stages
from mezzotint.compile.targets import Target, in_parts
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import EngineEntry

MAX_STEPS = 2
_GUIDED_ROWS = 2


def decoder_engines(
    job: CompileJob,
    stages: Stages,
    maker: Maker,
    whole: Target,
    decoder: Candidate,
    unet: EngineEntry,
    modules: Sequence[str],
) -> list[Candidate]:
    """Return the decoder as it is, or its parts at the same precision, verified in a row.

    ``modules`` are those after which it may be cut. Sections are timed in float32, for their shares of the whole.

    Raises:
        InvalidRequest: more parts are asked for than there are sections.
    """
    untimed = not unet.step_ms  # an engine for a GPU that is not here
    if job.decoder_parts == 1 or (untimed and not job.decoder_parts):
        return [decoder]
    limit_ms = 0.0 if untimed else MAX_STEPS * guided_step_ms(unet)
    whole_ms = maker.call_ms(decoder)
    if not job.decoder_parts and whole_ms <= limit_ms:
        return [decoder]
    sections = in_parts(whole, modules, None, stages)
    if job.decoder_parts > len(sections):
        raise InvalidRequest(
            f"decoder_parts={job.decoder_parts}: this decoder can be cut into {len(sections)} parts at most"
        )
    times = [maker.call_ms(maker.built(section, Precision.FP32)) for section in sections]
    shares = [ms / sum(times) * whole_ms for ms in times]
    ends = even_parts(shares, job.decoder_parts) if job.decoder_parts else fewest_parts(shares, limit_ms)
    return [decoder] if len(ends) == 1 else maker.at(decoder.entry.precision, *in_parts(whole, modules, ends, stages))


def guided_step_ms(unet: EngineEntry) -> float:
    """Return the milliseconds of a UNet call for one guided picture."""
    return unet.step_ms[_GUIDED_ROWS] if _GUIDED_ROWS in unet.step_ms else unet.step_ms[1] * _GUIDED_ROWS


def even_parts(costs: Sequence[float], num_parts: int) -> tuple[int, ...]:
    """Return where each of ``num_parts`` runs of costs ends, such that the dearest run is as cheap as can be."""
    ends = [(*inner, len(costs)) for inner in combinations(range(1, len(costs)), num_parts - 1)]
    return min(ends, key=lambda stops: _dearest(costs, stops))


def fewest_parts(costs: Sequence[float], limit: float) -> tuple[int, ...]:
    """Return the ends of the fewest runs of which none costs more than ``limit``; all single where that cannot be."""
    for num_parts in range(1, len(costs)):
        ends = even_parts(costs, num_parts)
        if _dearest(costs, ends) <= limit:
            return ends
    return tuple(range(1, len(costs) + 1))


def _dearest(costs: Sequence[float], ends: Sequence[int]) -> float:
    return max(sum(costs[first:end]) for first, end in pairwise((0, *ends)))
