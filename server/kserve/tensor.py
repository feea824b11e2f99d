"""A tensor of a Triton model as a word: its elements, its shape, and the field of a request that it sets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np


class Datatype(StrEnum):
    """A tensor's elements, under the protocol's name for them."""

    INT32 = "INT32"
    INT64 = "INT64"
    UINT8 = "UINT8"
    FP32 = "FP32"
    BYTES = "BYTES"

    @property
    def dtype(self) -> np.dtype[Any]:
        """What numpy calls it."""
        return _DTYPES[self]

    @property
    def config_name(self) -> str:
        """What ``config.pbtxt`` calls it."""
        return "TYPE_STRING" if self is Datatype.BYTES else f"TYPE_{self}"


_DTYPES: dict[Datatype, np.dtype[Any]] = {
    Datatype.INT32: np.dtype(np.int32),
    Datatype.INT64: np.dtype(np.int64),
    Datatype.UINT8: np.dtype(np.uint8),
    Datatype.FP32: np.dtype(np.float32),
    Datatype.BYTES: np.dtype(object),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output.

    Attributes:
        dims: its shape; -1 is any length.
        field: of an input, the field of ``Request`` or ``PictureOptions`` that it sets.
        is_file: of an input of BYTES, whether they are a file's and no text.
        optional: whether an input may be left out, and an output comes only where it is asked for by name.
        streamed: whether only a decoupled model has it.
    """

    name: str
    datatype: Datatype
    dims: tuple[int, ...] = (1,)
    field: str = ""
    is_file: bool = False
    optional: bool = True
    streamed: bool = False

    def fits(self, shape: Sequence[int]) -> bool:
        """Return whether an array of a shape may be sent for it; [1, 1] is one value as well."""
        return math.prod(shape) == 1 if self.dims == (1,) else len(shape) == len(self.dims)

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.dims)}"
