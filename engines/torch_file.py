"""What ``torch.save`` wrote, read without torch, and without running anything that the file names. Imports numpy.

The file is a zip of a pickle and of the bytes of each storage. A pickle calls whatever it names; here its opcodes are
read first, and only those are let through that plain values and tensors are made of, then only the few names below are
found. None of them does anything but look at arrays, so a file from a stranger can at worst be refused.
"""

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_BYTES = 64 << 20

_MAX_OPCODES = 10_000
_MAX_MEMO = 10_000
_OPCODES = frozenset(
    (
        *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1"),
        *("BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1"),
        *("TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "BINPUT", "LONG_BINPUT", "BINGET"),
        *("LONG_BINGET", "MEMOIZE", "GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE"),
    )
)
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
_BFLOAT16 = "BFloat16Storage"


class TorchFileError(ValueError):
    """A file is none of ``torch.save``, is damaged, or holds more than plain values and tensors."""


def read_torch_file(data: bytes) -> Any:
    """Return what the bytes of a file hold: plain values, with a numpy array for each tensor.

    Raises:
        TorchFileError: they are no such file, or one that holds more than plain values and tensors.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _read(archive)
    except TorchFileError:
        raise
    except Exception as error:  # a pickle may raise anything
        raise TorchFileError(f"it is damaged, or no file of torch.save since torch 1.6 ({_short(error)})") from None


def _read(archive: zipfile.ZipFile) -> Any:
    (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    pickled = _stored(archive, name)
    _check_opcodes(pickled)
    return _Unpickler(pickled, lambda key: _stored(archive, f"{name.removesuffix('data.pkl')}data/{key}")).load()


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a member of the archive. torch compresses none, and one that is could be of any size."""
    found = archive.getinfo(name)
    if found.compress_type != zipfile.ZIP_STORED or found.file_size > MAX_BYTES:
        raise TorchFileError(
            f"its {name} is compressed or larger than {MAX_BYTES >> 20} MiB, which torch.save does not do"
        )
    return archive.read(found)


def _check_opcodes(pickled: bytes) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickled)):
        is_put = opcode.name in ("BINPUT", "LONG_BINPUT")
        if opcode.name not in _OPCODES or count > _MAX_OPCODES or (is_put and int(argument or 0) > _MAX_MEMO):
            raise TorchFileError("it holds more than plain values and tensors")


class _Storage:
    """What a file calls one of torch's classes of storages."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class _Unpickler(pickle.Unpickler):
    """Finds the names that tensors are made of, and no other."""

    def __init__(self, pickled: bytes, storage: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(pickled))
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for here. Raises TorchFileError."""
        match module, name:
            case "collections", "OrderedDict":
                return OrderedDict
            case "torch._utils", "_rebuild_tensor_v2":
                return _tensor
            case "torch._utils", "_rebuild_parameter":
                return _parameter
            case "torch", storage if storage in _DTYPES:
                return _Storage(storage)
        raise TorchFileError(
            f"it names {_short(f'{module}.{name}')}, which is no part of a tensor and was not looked up"
        )

    def persistent_load(self, pid: Any) -> npt.NDArray[Any]:
        """Return a storage as an array of one axis."""
        _, kind, key, _, count = pid
        if not isinstance(kind, _Storage):
            raise TorchFileError("it has a storage of no type")
        array = np.frombuffer(self._storage(str(key)), _DTYPES[kind.name], count=count)
        if kind.name == _BFLOAT16:  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        return array


def _tensor(
    storage: npt.NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> npt.NDArray[Any]:
    """Return a tensor as a view of its storage."""
    count, expected = math.prod(shape), 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != expected:
            raise TorchFileError("it holds a tensor whose elements do not follow each other; save a contiguous() one")
        expected *= length
    if not 0 <= offset <= offset + count <= storage.size:
        raise TorchFileError("it holds a tensor that lies outside of its storage")
    return storage[offset : offset + count].reshape(shape)


def _parameter(tensor: npt.NDArray[Any], *_: object) -> npt.NDArray[Any]:
    return tensor


def _short(what: object) -> str:
    return str(what)[:100]
