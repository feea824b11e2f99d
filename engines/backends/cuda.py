"""The GPUs of this machine, as their first array and the stream that engines run on; the one file that imports CuPy.

Array-API code runs on CUDA's default stream, and all engines of a GPU on one other, a *blocking* one: CUDA itself lets
each of the two wait for what the other was given before, so no call waits on the host and no event is recorded. Shared
by ``tensorrt.py`` and ``onnxruntime.py``.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mezzotint.engines.backend import Array
from mezzotint.engines.errors import DeviceNotFound


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        index: CUDA's number of it.
        like: an empty float32 array on it.
        stream: the address of the stream that engines run on.
        use: makes it the calling thread's, which arrays and engines are made on.
        capability: its compute capability, as ``8.9``.
    """

    index: int
    like: Array
    stream: int
    use: Callable[[], object]
    capability: str


def device_index(device: str) -> int:
    """Return the GPU that ``cuda`` or ``cuda:1`` names. Raises DeviceNotFound."""
    name, _, index = device.lower().partition(":")
    if name not in ("cuda", "gpu") or (index and not index.isdecimal()):
        raise DeviceNotFound(f"device {device}: is no GPU; use cuda, or cuda:1 for the second one")
    return int(index or 0)


def count() -> int:
    """Return how many GPUs CuPy can use; 0 also where it is not installed."""
    try:
        return int(_cupy().cuda.runtime.getDeviceCount())
    except (DeviceNotFound, RuntimeError):  # CuPy's CUDARuntimeError is one
        return 0


@functools.cache
def gpu(index: int) -> Gpu:
    """Return a GPU by its number. Raises DeviceNotFound, which says what is missing."""
    cupy = _cupy()
    try:
        found = int(cupy.cuda.runtime.getDeviceCount())
    except RuntimeError as error:
        raise DeviceNotFound(
            f"device cuda:{index}: CUDA finds no GPU that it can use ({error}); install NVIDIA's driver or choose "
            "another device"
        ) from error
    if index >= found:
        raise DeviceNotFound(f"device cuda:{index}: CUDA finds {found} GPUs, counted from 0; choose one of them")
    device = cupy.cuda.Device(index)
    with device:
        stream, like = cupy.cuda.Stream(), cupy.empty(0, dtype=cupy.float32)
    _STREAMS.append(stream)
    capability = str(device.compute_capability)
    return Gpu(index, like, int(stream.ptr), device.use, f"{capability[:-1]}.{capability[-1]}")


_STREAMS: list[object] = []
"""Keeps the streams alive, which engines know by their address alone."""


def _cupy() -> Any:
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise DeviceNotFound(
            f"device cuda: arrays on a GPU need CuPy, which cannot be imported ({error}); "
            "`pip install cupy-cuda13x`, or cupy-cuda12x beside libraries for CUDA 12"
        ) from error
