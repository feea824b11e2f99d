"""How far a built engine strays from torch, and the line beyond which it is refused.

The figure is the signal-to-noise ratio of a component's output in dB: 10 log10(sum ref² / sum (ref − out)²); the UNet's
is the worst of ten timesteps of the model's own trajectories.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.compile.reference import Arrays
from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.errors import VerifyError
from mezzotint.engines.manifest import Component, EngineEntry, Measured, Precision

# Half-way, in dB, between what sound engines measured (the least of four models) and an engine
# whose weights are 5 % too large: rounding stays above it, a wrong graph below (table: docs/compile.md).
_DEFAULT = ""
_FLOOR_DB: Mapping[str, Mapping[Precision, float]] = {
    _DEFAULT: {Precision.FP32: 70.0, Precision.FP16: 35.0, Precision.BF16: 20.0, Precision.INT8: 24.0},
    Component.TEXT_ENCODER: {Precision.FP32: 70.0, Precision.FP16: 40.0, Precision.BF16: 31.0, Precision.INT8: 30.0},
}
_ALL_BUT_ZERO = 200.0  # two equal outputs; JSON knows no infinity


def snr_db(reference: npt.NDArray[Any], output: npt.NDArray[Any]) -> float:
    """Return the signal-to-noise ratio of ``output`` in dB; not finite outputs are −200."""
    if not np.isfinite(output).all():
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


def measure(engine: Engine, reference: Arrays, component: Component) -> list[float]:
    """Return the SNR of each recorded call: ten of the UNet, one of any other component."""
    inputs, output = engine.spec.inputs, engine.spec.outputs[0].name
    recorded = {t.name: reference[f"{component}/{t.name}"] for t in inputs}
    truth = reference[f"{component}/{output}"]
    if component is not Component.UNET:
        return [snr_db(truth, engine.run(recorded)[output])]
    return [
        snr_db(truth[i], engine.run({name: array[i] for name, array in recorded.items()})[output])
        for i in range(len(truth))
    ]


def judge(entry: EngineEntry, figures: list[float]) -> Measured:
    """Return the figure that counts, the worst, beside its floor."""
    floor = _FLOOR_DB.get(entry.component, _FLOOR_DB[_DEFAULT])[entry.precision]
    output = entry.outputs[0].name
    return Measured(component=entry.component, output=output, snr_db=round(min(figures), 2), floor_db=floor)


def passes(measured: Measured) -> bool:
    """Return whether an engine is good enough to be served."""
    return measured.snr_db >= measured.floor_db


def refuse(measured: Measured, precision: Precision) -> VerifyError:
    """Return the error for an engine that is not."""
    return VerifyError(
        f"{measured.component}: output {measured.output!r} has {measured.snr_db:.1f} dB signal to noise against torch "
        f"at {precision}, below the tolerance of {measured.floor_db:.1f} dB; nothing was written, use a higher one"
    )
