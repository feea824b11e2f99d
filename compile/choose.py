"""Which precision a component gets: the one that was asked for, or, with ``auto``, the one that measured fastest."""

from collections.abc import Mapping
from typing import Any

from mezzotint.compile.job import AUTO, CompileJob
from mezzotint.compile.measure import host, times_in_pairs
from mezzotint.compile.precision import check_backend
from mezzotint.engines.backend import Engine
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CompileError
from mezzotint.engines.timing import distinct_rows

ROWS = (2,)  # a guided picture; what most calls hold on a CPU
MIN_GAIN = 0.10
CALIBRATED = (Component.UNET, Component.VAE_DECODER)  # the others run once a prompt, on few rows: int8 weights do
_ONLY_FOR = {  # what the others get instead: int8 weights
    Precision.INT8: CALIBRATED,
    Precision.INT8_BF16: CALIBRATED,
    Precision.INT8_HYBRID: CALIBRATED,
    Precision.FP8: CALIBRATED,
    Precision.INT4_WEIGHTS: (Component.UNET,),  # the text encoder strays too far, and the VAE has few linear layers
}
_DEFAULT = {Component.SAFETY_CHECKER: Precision.FP32}  # a flag is a threshold; coarser only where it is named
_TO_ORDER = {Precision.INT8_HYBRID, Precision.INT4_WEIGHTS}  # what auto leaves out


def check_precisions(job: CompileJob) -> None:
    """Refuse what no component or precision is called, and what the backend cannot run. Raises CompileError."""
    allowed = [AUTO, *Precision]
    for component, value in job.precision.items():
        if component and component not in set(Component):
            raise CompileError(f"precision: {component!r} is no component; use {', '.join(Component)}")
        if value not in allowed:
            raise CompileError(f"precision={value!r}: must be one of {', '.join(allowed)}")
        if value != AUTO:
            check_backend(Precision(value), job.backend)


def precisions(job: CompileJob, component: Component) -> list[Precision]:
    """Return the precisions to build: the one asked for, or all that the device computes in, fp32 first."""
    asked = job.precision.get(component, _DEFAULT.get(component, job.precision.get("", AUTO)))
    if asked != AUTO:
        return [_for(component, Precision(asked))]
    if job.backend != job.runs_on:
        return [Precision.FP16]  # nothing can be timed without the GPU
    if component is Component.VAE_ENCODER:
        return [Precision.FP32]  # nothing calls it often enough to be worth a timing
    found = get_backend(job.backend).precisions(job.device)
    return [value for value in found if value not in _TO_ORDER and component in _ONLY_FOR.get(value, tuple(Component))]


def _for(component: Component, asked: Precision) -> Precision:
    """Return what a component gets of a precision that is asked for: int8 weights, where that is too coarse for it."""
    return asked if component in _ONLY_FOR.get(asked, tuple(Component)) else Precision.INT8_WEIGHTS


def is_calibrated(job: CompileJob, component: Component) -> bool:
    """Return whether an engine of a component is to be built that needs to know the ranges of its activations."""
    return any(value.is_calibrated for value in precisions(job, component))


def fastest(engines: Mapping[Precision, Engine]) -> dict[str, Any]:
    """Time verified engines in interleaved pairs and leave the first, fp32, only for a gain of more than MIN_GAIN."""
    finest = next(iter(engines))  # not fp32 on a device without it
    spec = engines[finest].spec
    inputs = distinct_rows(spec, ROWS[0])
    timed = times_in_pairs({str(name): engine for name, engine in engines.items()}, inputs, str(finest))
    best = min(timed, key=lambda name: timed[name][1])
    chosen = best if timed[best][1] < 1 / (1 + MIN_GAIN) else str(finest)
    return {
        "chosen": chosen,
        "host": host(),
        "rows": ROWS[0],
        "ms": {name: round(ms, 3) for name, (ms, _) in timed.items()},
        "ratio_to_finest": {name: round(ratio, 3) for name, (_, ratio) in timed.items()},
    }
