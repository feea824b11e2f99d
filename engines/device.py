"""The only place that copies between host and device; everything else keeps arrays where they are.

Every read back is a call of ``to_host``, so a test that counts those sees them all. CuPy is imported by whoever makes
the first array of a GPU (``backends/cuda.py``); here arrays bring their library along.
"""

import importlib
from typing import Any, TypeAlias

import array_api_compat
import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any

# numpy from 2.1 on follows the standard by itself; the wrapper around it takes a tenth of a second to import.
_NUMPY: Any = np if hasattr(np, "__array_namespace_info__") else importlib.import_module("array_api_compat.numpy")


def xp(array: Array) -> Any:
    """Return the array-API namespace that ``array`` belongs to."""
    if isinstance(array, np.ndarray):  # as the library finds out too, in ten times as long
        return _NUMPY
    return array_api_compat.array_namespace(array)


def from_host(array: npt.NDArray[Any], like: Array) -> Array:
    """Return ``array`` on the device and in the library of ``like``."""
    if isinstance(like, np.ndarray):
        return array
    return xp(like).asarray(array, device=array_api_compat.device(like))


def to_host(array: Array) -> npt.NDArray[Any]:
    """Return a numpy array of ``array``; waits for the device."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_cupy_array(array):
        return np.asarray(array_api_compat.to_device(array, "cpu"))
    return np.from_dlpack(array)


def place(array: Array, like: Array) -> Array:
    """Return ``array`` on the device of ``like``; one that is there already is returned as it is."""
    if isinstance(array, np.ndarray) or isinstance(like, np.ndarray):
        return from_host(to_host(array), like)
    if xp(array) is xp(like) and array_api_compat.device(array) == array_api_compat.device(like):
        return array
    return from_host(to_host(array), like)


def wait(array: Array) -> None:
    """Wait until the device of ``array`` has done all that it was given; copies nothing."""
    if array_api_compat.is_cupy_array(array):
        array.device.synchronize()


def address(array: Array) -> int:
    """Return where the first element of ``array`` lies in the memory of its device; it must be C-contiguous."""
    return int(array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr)


def copied(array: Array) -> Array:
    """Return a copy on the same device: an engine's outputs last until its next run."""
    return xp(array).asarray(array, copy=True)
