"""Textual-inversion files: a trigger word and its vectors, as A1111's web UI and diffusers write them. Imports numpy.

.safetensors   ``emb_params`` (A1111), or one tensor under its token's name (diffusers' learned_embeds)
.pt, .bin      ``string_to_param`` (A1111), or one tensor under its token's name; read by ``torch_file.py``
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.engines.errors import EmbeddingError
from mezzotint.engines.torch_file import MAX_BYTES, read_torch_file

SUFFIXES = (".safetensors", ".pt", ".bin")

_A1111_SAFE, _A1111 = "emb_params", "string_to_param"
_FLOATS = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}


@dataclass(frozen=True, slots=True)
class EmbeddingPath:
    """A file or a folder of them as it was given.

    Attributes:
        name: the file's trigger word; empty is the one that it has.
    """

    path: Path
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """A trigger word, float32 [n, width] that stand for it, and the SHA-256 of the file in hex."""

    name: str
    vectors: npt.NDArray[np.float32]
    digest: str


def parse_embedding_path(text: str) -> EmbeddingPath:
    """Read ``FILE``, ``FOLDER`` or ``NAME=FILE``; what exists as it stands is a path."""
    name, equals, path = text.partition("=")
    return EmbeddingPath(Path(path), name) if equals and not Path(text).exists() else EmbeddingPath(Path(text))


def embedding_files(given: EmbeddingPath) -> Iterator[EmbeddingPath]:
    """Return the files of a path: itself, or those of a folder whose suffixes are ``SUFFIXES``, by name.

    Raises EmbeddingError where a folder has none, is given a name, or cannot be read.
    """
    try:
        is_folder = given.path.is_dir()
        found = sorted(path for path in given.path.iterdir() if path.suffix.lower() in SUFFIXES) if is_folder else []
    except OSError as error:
        raise _unreadable(given.path, error) from None
    if not is_folder:
        yield given
        return
    if given.name or not found:
        why = "is a folder, and a name is one file's" if given.name else f"holds no file of {', '.join(SUFFIXES)}"
        raise EmbeddingError(f"embedding {given.path}: {why}; name the file")
    yield from map(EmbeddingPath, found)


def read_embedding(given: EmbeddingPath) -> Embedding:
    """Read a file. Raises EmbeddingError where it cannot be read or holds no embedding."""
    path = given.path
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES >> 20} MiB")
        data = path.read_bytes()
        match path.suffix.lower():
            case ".safetensors":
                held = _safetensors(data)
            case ".pt" | ".bin":
                held = read_torch_file(data)
            case _:
                raise ValueError(f"its suffix is none of {', '.join(SUFFIXES)}")
        name, vectors = _embedding(held)
    except OSError as error:
        raise _unreadable(path, error) from None
    except ValueError as error:
        raise EmbeddingError(f"embedding {path}: cannot be used: {error}") from None
    return Embedding(given.name or name or path.stem, vectors, hashlib.sha256(data).hexdigest())


def _unreadable(path: Path, error: OSError) -> EmbeddingError:
    return EmbeddingError(f"embedding {path}: cannot be read ({error.strerror}); check the path")


def _embedding(held: Any) -> tuple[str, npt.NDArray[np.float32]]:
    """Return the name that a file gives its token, if any, and the vectors. Raises ValueError."""
    tensors = held.get(_A1111, held) if isinstance(held, Mapping) else None
    if not isinstance(tensors, Mapping) or len(tensors) != 1:
        keys = ", ".join(sorted(map(str, tensors)))[:100] if isinstance(tensors, Mapping) else type(held).__name__
        raise ValueError(f"it holds {keys or 'nothing'}, where one token's vectors are expected")
    ((key, array),) = tensors.items()
    if not isinstance(array, np.ndarray) or array.ndim not in (1, 2) or not array.size or array.dtype.kind != "f":
        raise ValueError("its tensor is none of vectors; expected floats [vectors, width]")
    vectors = np.atleast_2d(array).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise ValueError("its vectors have values that are no finite numbers; it was damaged, or its training failed")
    return ("" if tensors is not held or key == _A1111_SAFE else str(key)), vectors


def _safetensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    import safetensors

    library: Any = safetensors  # its functions have no types
    try:
        found: Sequence[tuple[str, Mapping[str, Any]]] = library.deserialize(data)
    except safetensors.SafetensorError as error:
        raise ValueError(f"it is damaged ({error})") from None
    return {key: _array(tensor) for key, tensor in found}


def _array(tensor: Mapping[str, Any]) -> npt.NDArray[Any]:
    dtype = tensor["dtype"]
    if dtype not in _FLOATS:
        raise ValueError(f"its tensor is of {dtype}, where floats are expected")
    array = np.frombuffer(bytes(tensor["data"]), _FLOATS[dtype]).reshape(tensor["shape"])
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array
