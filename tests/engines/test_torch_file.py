"""Files of torch.save without torch: tensors come back, and nothing that a file names is ever called."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mezzotint.engines.torch_file import TorchFileError, read_torch_file

TENSOR = torch.arange(12, dtype=torch.float32).reshape(3, 4)


def saved(held: object, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(held, buffer, **options)
    return buffer.getvalue()


def archive(
    pickled: bytes, storages: dict[str, bytes] | None = None, *, compression: int = zipfile.ZIP_STORED
) -> bytes:
    """A file as torch.save lays it out, of any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return buffer.getvalue()


class Calls:
    """An object whose pickle calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments, *((state,) if state is not None else ()))

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64])
@pytest.mark.parametrize("protocol", [2, 4])
def test_every_tensor_comes_back(dtype: torch.dtype, protocol: int) -> None:
    held = {"a": TENSOR.to(dtype), "b": [1, 2.5, None, True, "x", (TENSOR[1:],)], "c": OrderedDict(d=-(2**40))}
    found = read_torch_file(saved(held, pickle_protocol=protocol))
    assert np.array_equal(found["a"], TENSOR.numpy())
    assert np.array_equal(found["b"][5][0], TENSOR[1:].numpy())
    assert found["b"][:5] == [1, 2.5, None, True, "x"]
    assert found["c"] == {"d": -(2**40)}


def test_parameters_and_tensors_with_gradients_are_tensors() -> None:
    found = read_torch_file(saved([torch.nn.Parameter(TENSOR), TENSOR.clone().requires_grad_()]))
    assert all(np.array_equal(array, TENSOR.numpy()) for array in found)


def test_a_tensor_that_is_not_contiguous_is_refused() -> None:
    with pytest.raises(TorchFileError, match="elements do not follow each other"):
        read_torch_file(saved(TENSOR.T))


@pytest.mark.parametrize(
    "function", [os.system, os.remove, eval, exec, getattr, __import__, pickle.loads, np.load, torch.load, print, Path],
    ids=lambda function: function.__name__,
)  # fmt: skip
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_calls_something_is_refused_by_its_name_and_calls_nothing(
    tmp_path: Path, function: Callable[..., Any], protocol: int
) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    for arguments in ((str(victim),), (f"rm {victim}",), (f"open({str(victim)!r}, 'w').write('x')",)):
        pickled = pickle.dumps({"string_to_param": {"*": Calls(function, *arguments)}}, protocol)
        with pytest.raises(TorchFileError, match=r"it names .*, which is no part of a tensor and was not looked up"):
            read_torch_file(archive(pickled))
    assert victim.read_bytes() == b""


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # protocol 0's strings
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # NEWOBJ
        b"\x80\x02ccollections\nOrderedDict\n)R}b.",  # BUILD
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a memo of 2**31 entries
        b"\x80\x02" + b"N0" * 10_000 + b"N.",
        b"\x80\x02" + b")" + b"\x85" * 20_000 + b".",  # nested so deeply that hashing it would overflow the stack
    ],
    ids=["GLOBAL", "INST", "OBJ", "NEWOBJ", "BUILD", "EXT1", "memo", "long", "deep"],
)
def test_opcodes_that_no_tensor_needs_are_refused_before_any_is_run(pickled: bytes) -> None:
    with pytest.raises(TorchFileError, match=r"more than plain values and tensors|which is no part of a tensor"):
        read_torch_file(archive(pickled))


def of_tensor(offset: int, shape: tuple[int, ...], strides: tuple[int, ...], count: int = 4) -> bytes:
    """A file with one tensor over a storage of 16 bytes, whatever its numbers say."""

    storage = object()

    class Named(pickle._Pickler):
        def persistent_id(self, held: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if held is storage else None

    buffer = io.BytesIO()
    rebuild = torch._utils._rebuild_tensor_v2
    Named(buffer, 2).dump(Calls(rebuild, storage, offset, shape, strides, False, OrderedDict()))
    return archive(buffer.getvalue(), {"0": np.arange(4, dtype="<f4").tobytes()})


def test_a_tensor_is_read_where_its_numbers_say() -> None:
    assert read_torch_file(of_tensor(1, (3, 1), (1, 77))).tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    "data",
    [
        of_tensor(2, (3,), (1,)),
        of_tensor(-1, (1,), (1,)),
        of_tensor(0, (5,), (1,)),
        of_tensor(0, (2,), (1 << 40,)),
        of_tensor(0, (1 << 62, 4), (4, 1)),
        of_tensor(0, (-4,), (1,)),
        of_tensor(0, (4,), (1,), count=5),
        of_tensor(0, (4,), (1, 1)),
    ],
)
def test_a_tensor_that_lies_outside_of_its_storage_is_refused(data: bytes) -> None:
    with pytest.raises(TorchFileError, match=r"outside of its storage|do not follow each other|damaged"):
        read_torch_file(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PK",
        saved(TENSOR, _use_new_zipfile_serialization=False),
        saved(TENSOR)[:-200],
        archive(b""),
        archive(b"\x80\x02"),
        archive(b"\x80\x02."),
        archive(b"\x80\x02\x80\x02}(."),
    ],
    ids=["empty", "letters", "before-1.6", "cut", "no-pickle", "no-stop", "no-value", "mark"],
)
def test_what_is_no_such_file_is_one_sentence(data: bytes) -> None:
    with pytest.raises(TorchFileError, match=r"damaged, or no file of torch\.save since torch 1\.6|more than plain"):
        read_torch_file(data)


def test_a_compressed_file_which_could_be_of_any_size_is_refused() -> None:
    data = archive(b"\x80\x02N.", {"0": bytes(1 << 20)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(TorchFileError, match=r"is compressed or larger than 64 MiB, which torch\.save does not do"):
        read_torch_file(data)


def test_a_file_of_many_thousand_random_bytes_ends_in_a_refusal_too() -> None:
    rng = np.random.default_rng(0)
    good = bytearray(saved({"a": TENSOR, "b": "text"}))
    refused = 0
    for _ in range(300):
        data = good.copy()
        for place in rng.integers(0, len(good), 3):
            data[place] = rng.integers(0, 256)
        try:
            read_torch_file(bytes(data))
        except TorchFileError:
            refused += 1
    assert refused > 10
