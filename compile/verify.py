"""How far a built engine strays from torch, and the line beyond which it is refused.

The figure is the signal-to-noise ratio of a component's output in dB: 10 log10(sum ref² / sum (ref − out)²); the UNet's
is the worst of ten timesteps of the model's own trajectories.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.compile.reference import Arrays
from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.device import to_host
from mezzotint.engines.errors import VerifyError
from mezzotint.engines.manifest import EngineEntry, Measured
from mezzotint.engines.variants import title

# Half-way, in dB, between what sound engines measured (the least of four models) and an engine
# whose weights are 5 % too large: rounding stays above it, a wrong graph below (table: docs/compile.md).
_DEFAULT = ""
_COMMON = {Precision.FP32: 70.0, Precision.FP16: 35.0, Precision.BF16: 20.0, Precision.INT8_WEIGHTS: 24.0}
_CALIBRATED = tuple(precision for precision in Precision if precision.is_calibrated)
_FLOOR_DB: Mapping[str, Mapping[Precision, float]] = {
    _DEFAULT: _COMMON | dict.fromkeys(_CALIBRATED, 16.0) | {Precision.INT4_WEIGHTS: 18.0},
    Component.VAE_DECODER: _COMMON | dict.fromkeys(_CALIBRATED, 15.5),
    Component.TEXT_ENCODER: {
        Precision.FP32: 70.0,
        Precision.FP16: 40.0,
        Precision.BF16: 31.0,
        Precision.INT8_WEIGHTS: 30.0,
    },
}
_ALL_BUT_ZERO = 200.0  # two equal outputs; JSON knows no infinity


def snr_db(reference: npt.NDArray[Any], output: npt.NDArray[Any]) -> float:
    """Return the signal-to-noise ratio of ``output`` in dB; −200 where either is not finite."""
    if not (np.isfinite(output).all() and np.isfinite(reference).all()):
        return -_ALL_BUT_ZERO
    signal = float(np.sum(np.square(reference, dtype=np.float64)))
    noise = float(np.sum(np.square(reference.astype(np.float64) - output)))
    if noise == 0:
        return _ALL_BUT_ZERO
    return min(_ALL_BUT_ZERO, 10 * float(np.log10(max(signal, 1e-30) / noise)))


def psnr_db(reference: npt.NDArray[np.uint8], image: npt.NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures in dB; equal ones have 200."""
    error = float(np.mean(np.square(reference.astype(np.float64) - image)))
    return _ALL_BUT_ZERO if error == 0 else 10 * float(np.log10(255**2 / error))


def load_one(folder: Path, entry: EngineEntry, device: str, rows: tuple[int, ...]) -> Engine:
    """Load one engine from a stage's folder, prepared for calls of ``rows``."""
    return get_backend(entry.backend).load(folder, entry, EngineOptions(device=device, row_counts=rows))


def measure(engines: Sequence[Engine], reference: Arrays, recorded_as: str) -> dict[str, list[float]]:
    """Return the SNR of each recorded call by output: ten of the UNet, one of any other component.

    The engines are the parts of one component, called in a row.
    """
    given = {tensor.name: reference[f"{recorded_as}/{tensor.name}"] for tensor in engines[0].spec.inputs}
    truth = {tensor.name: reference[f"{recorded_as}/{tensor.name}"] for tensor in engines[-1].spec.outputs}
    figures: dict[str, list[float]] = {name: [] for name in truth}
    if engines[0].spec.component is not Component.UNET:
        given, truth = ({name: array[None] for name, array in arrays.items()} for arrays in (given, truth))
    for i in range(len(next(iter(given.values())))):
        tensors: Mapping[str, Any] = {name: calls[i] for name, calls in given.items()}
        for engine in engines:
            tensors = engine.run(tensors)
        for name, calls in truth.items():
            figures[name].append(snr_db(calls[i], to_host(tensors[name])))
    return figures


def judge(entry: EngineEntry, figures: Mapping[str, Sequence[float]]) -> tuple[Measured, ...]:
    """Return for each output the figure that counts, the worst, beside its floor."""
    floor = _FLOOR_DB.get(entry.component, _FLOOR_DB[_DEFAULT])[entry.precision]
    return tuple(
        Measured(
            component=entry.component,
            variant=entry.variant,
            output=name,
            snr_db=round(min(calls), 2),
            floor_db=floor,
        )
        for name, calls in figures.items()
    )


def worst(measured: Sequence[Measured]) -> Measured:
    """Return the output that is closest to its floor, or farthest below it."""
    return min(measured, key=lambda output: output.snr_db - output.floor_db)


def passes(measured: Sequence[Measured]) -> bool:
    """Return whether an engine is good enough to be served."""
    return all(output.snr_db >= output.floor_db for output in measured)


def refuse(entry: EngineEntry, outputs: Sequence[Measured]) -> VerifyError:
    """Return the error for an engine that is not."""
    measured, precision = worst(outputs), entry.precision
    return VerifyError(
        f"{title(entry.component, entry.variant)}: output {measured.output!r} has {measured.snr_db:.1f} dB signal to "
        f"noise against torch at {precision}, below the tolerance of {measured.floor_db:.1f} dB; nothing was written, "
        "use a higher one"
    )
