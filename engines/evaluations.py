"""What each model evaluation of a picture calls: which of the UNet's engines, and which of the picture's rows.

Pure: it follows from the plan and the request alone, never from who shares a call, so a picture stays the same in any
company. Imports the plan, the request, the manifest and guidance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mezzotint.engines import guidance
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.guidance import Weights
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import Plan
from mezzotint.engines.variants import FULL, SHALLOW, built_rows


@dataclass(frozen=True, slots=True)
class UNetCall:
    """One evaluation's call.

    Attributes:
        variant: ``full`` or ``shallow``.
        weights: the weight of each row in guidance; fewer rows than the picture has are its last ones.
        keeps: whether the next call is a shallow one, for which the full one's feature is kept.
    """

    variant: str
    weights: Weights
    keeps: bool


def unet_calls(plan: Plan, request: Request, *, takes_guidance: bool = False) -> tuple[UNetCall, ...]:
    """Return the call of each of the plan's evaluations; no negative row where the UNet takes guidance as an input.

    Raises:
        InvalidRequest: a schedule, an interval or the parts' weights do not fit.
    """
    if takes_guidance:
        _check_plain_guidance(request)
    weights = _row_weights(plan, request, takes_guidance=takes_guidance)
    _check_schedule(plan, request)
    variants = _variants([len(rows) for rows in weights], request)
    following = (*variants[1:], FULL)
    return tuple(
        UNetCall(variant, rows, keeps=after == SHALLOW)
        for variant, rows, after in zip(variants, weights, following, strict=True)
    )


def most_rows(calls: Sequence[UNetCall], request: Request, manifest: Manifest) -> int:
    """Return the most rows of a picture's calls. Raises InvalidRequest where the bundle was built for fewer."""
    num_rows, most = max(len(call.weights) for call in calls), min(built_rows(manifest).values())
    if num_rows > most:
        num_parts = len(request.parts)
        what, instead = f"guidance={request.guidance:g}: takes", "use guidance 1"
        if num_parts > 1:
            what, instead = f"prompt: its {num_parts} parts between ANDs take", "leave some out"
        raise InvalidRequest(
            f"{what} {num_rows} rows, but bundle {manifest.name} was built for {most}; {instead} or compile again with "
            f"`--max-rows {num_rows}`"
        )
    return num_rows


def _row_weights(plan: Plan, request: Request, *, takes_guidance: bool) -> list[Weights]:
    """Return each evaluation's row weights: guided inside the interval, else the conditional rows alone.

    Kynkäänniemi et al. 2024 (arXiv 2404.07724). An evaluation's place is the share of the steps that are complete
    before it, so both of Heun's belong to one step; it is inside where start <= place < end. diffusers' guiders round
    both ends down to whole steps first. i / n is rounded as the decimal is that a user types, while n times that
    decimal may miss i.
    """
    complete = [0, *plan.steps[:-1].tolist()]
    places = [steps / plan.num_steps for steps in complete]
    inside = [not takes_guidance and request.guidance_start <= place < request.guidance_end for place in places]
    parts = [part.weight for part in request.parts]
    guided = guidance.weights(request.guidance, request.guidance_rescale, parts)
    alone = guided if all(inside) else guidance.alone(parts)
    return [guided if guides else alone for guides in inside]


def _variants(num_rows: list[int], request: Request) -> tuple[str, ...]:
    """Return each evaluation's engine: full where the schedule or interval says so, or where a row has no feature."""
    variants = []
    num_kept = age = 0  # the rows that have a feature, and the evaluations since it was made
    for evaluation, rows in enumerate(num_rows):
        due = evaluation in request.cache_schedule if request.cache_schedule else age >= request.cache_interval
        full = due or rows > num_kept
        variants.append(FULL if full else SHALLOW)
        num_kept, age = rows, 1 if full else age + 1
    return tuple(variants)


def _check_plain_guidance(request: Request) -> None:
    if (request.guidance_start, request.guidance_end, request.guidance_rescale) != (0.0, 1.0, 0.0):
        raise InvalidRequest(
            "guidance_start, guidance_end, guidance_rescale: this model takes guidance as an input and has no row "
            "without it; leave them out"
        )


def _check_schedule(plan: Plan, request: Request) -> None:
    last = max(request.cache_schedule, default=0)
    if last >= plan.num_evaluations:
        raise InvalidRequest(
            f"cache_schedule: names evaluation {last}, but {request.steps} steps of this sampler take "
            f"{plan.num_evaluations}, 0 to {plan.num_evaluations - 1}; leave it out"
        )
