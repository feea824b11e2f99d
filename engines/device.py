"""The only place that copies between host and device; everything else keeps arrays where they are."""

from typing import Any, TypeAlias

import array_api_compat
import array_api_compat.numpy
import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any


def xp(array: Array) -> Any:
    """Return the array-API namespace that ``array`` belongs to."""
    if isinstance(array, np.ndarray):  # as the library finds out too, in ten times as long
        return array_api_compat.numpy
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
