"""Derives each precision's ONNX graph from the one float32 export; inputs and outputs stay float32.

fp32 is the export. For OpenVINO fp16 and bf16 store large weights in that type, and the runtime's hint decides what it
computes in; for ONNX Runtime fp16 is a float16 graph. int8 stores large weights as integers, int4-weights those of
linear layers in four bits (``weights.py``); int8 also rounds activations where ``graph/quantise.py`` says so. Weights
are read, converted and written one after the other into one file beside the graph, ``<name>.data``, so a model takes
the memory of its largest weight, not of all.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper

from mezzotint.compile import weights
from mezzotint.compile.float16_graph import to_float16_graph
from mezzotint.compile.graph.quantise import Ranges, round_activations, sensitive
from mezzotint.compile.graph.zero_points import Offset, fold_zero_points
from mezzotint.compile.weights import Convert, Weight
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import CompileError

_BACKENDS = ("openvino", "onnxruntime", "tensorrt")
_TENSORRT = (
    Precision.FP32,
    Precision.FP16,
    Precision.FP8,
    Precision.INT8,
    Precision.INT8_HYBRID,
    Precision.INT8_WEIGHTS,
)
_EXTERNAL_BYTES = 1 << 16  # initialisers from this size on lie in the data file
_ALIGNMENT = 4096  # a page, so that runtimes can map each weight


@dataclass(frozen=True, slots=True)
class PrecisionStats:
    """What a precision pass did.

    Attributes:
        source_bytes: bytes of all weights in the float32 export.
        target_bytes: bytes of all weights written, scales among them.
        num_converted: number of weights that changed type.
        converted_share: their share of all weights, counted in elements, 0 to 1.
    """

    source_bytes: int
    target_bytes: int
    num_converted: int
    converted_share: float


def check_backend(precision: Precision, backend: str) -> None:
    """Refuse what a backend cannot run. Raises CompileError."""
    if backend not in _BACKENDS:
        raise CompileError(f"backend {backend!r}: there are precision passes for {', '.join(_BACKENDS)} only")
    if precision in (Precision.BF16, Precision.INT8_BF16) and backend == "onnxruntime":
        raise CompileError(
            f"precision {precision}: onnxruntime's CPU provider has no bfloat16 kernels; use fp32, fp16 or int8"
        )
    if backend == "tensorrt" and precision not in _TENSORRT:
        raise CompileError(
            f"precision {precision}: tensorrt is built for {', '.join(_TENSORRT)} here; use one of these"
        )
    if precision is Precision.FP8 and backend != "tensorrt":
        raise CompileError(f"precision fp8: {backend} has no kernels for eight-bit floats; use int8, or tensorrt")


def derive(
    source: Path,
    target: Path,
    precision: Precision,
    backend: str,
    ranges: Ranges | None = None,
    *,
    unrounded: Collection[str] | None = None,
    without_zero_points: bool = False,
) -> PrecisionStats:
    """Write the float32 ONNX model ``source`` as ``target`` in another precision, for one backend.

    ``ranges`` are those of the activations that a calibrated precision rounds; the nodes named in ``unrounded`` keep
    theirs float, by default those that lose most by it. ``without_zero_points`` takes zero points out of padded
    convolutions, which pays where pictures are small.

    Raises:
        CompileError: the backend cannot run this precision, or the source cannot be read.
    """
    check_backend(precision, backend)
    if source.resolve() == target.resolve():
        raise CompileError(f"{target}: is the export itself; write the {precision} model to another file")
    model = _read(source)
    kept_float = sensitive(model) if unrounded is None else unrounded
    _forget_origin(model)
    offsets: dict[str, list[Offset]] = {}
    if precision.is_calibrated:
        _round_activations(model, precision, ranges or {}, kept_float, symmetric=backend == "tensorrt")
        offsets = fold_zero_points(model) if without_zero_points else {}
    convert = weights.with_offsets(_converter(model, precision, backend), offsets)
    try:
        with _DataFile(target) as data:
            stats = _write_weights(model, source.parent, data, convert)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise CompileError(f"{source}: its weights cannot be read or written ({error}); export it again") from error
    onnx.save(model, target)
    return stats


def _read(source: Path) -> ModelProto:
    try:
        return onnx.load(source, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise CompileError(f"{source}: is no ONNX model that can be read ({error}); export it again") from error


def _round_activations(
    model: ModelProto, precision: Precision, ranges: Ranges, unrounded: Collection[str], *, symmetric: bool
) -> None:
    try:
        round_activations(model, precision, ranges, unrounded, symmetric=symmetric)
    except KeyError as error:
        raise CompileError(f"precision {precision}: no range is known of tensor {error}; calibrate first") from None


def _forget_origin(model: ModelProto) -> None:
    """Drop what the exporter notes of its own source lines: it holds the compiling machine's paths."""
    graph = model.graph
    for part in [model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _converter(model: ModelProto, precision: Precision, backend: str) -> Convert:
    """Rewrite the graph for the precision and return what is to be done with each weight."""
    match precision, backend:
        case Precision.FP32, _:
            return weights.unchanged
        case Precision.FP16, "onnxruntime" | "tensorrt":
            return weights.retyped(to_float16_graph(model))
        case _, "tensorrt":
            halves = to_float16_graph(model)
            stored = weights.float8_weights if precision is Precision.FP8 else weights.int8_weights
            return weights.halved(stored(model), halves)
        case Precision.INT8_WEIGHTS, _:
            return weights.int8_weights(model)
        case Precision.INT4_WEIGHTS, _:
            return weights.int4_weights(model)
        case _ if precision.is_calibrated:
            return weights.int8_weights(model)
        case Precision.FP16, _:
            return weights.stored_as(model, np.dtype(np.float16))
        case _:
            return weights.stored_as(model, np.dtype(ml_dtypes.bfloat16))


def _write_weights(model: ModelProto, folder: Path, data: "_DataFile", convert: Convert) -> PrecisionStats:
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    source_bytes = target_bytes = elements = converted_elements = num_converted = 0
    for tensor in tensors:
        weight = _weight(tensor, folder)
        written = list(convert(tensor.name, weight))
        model.graph.initializer.extend(data.store(name, array) for name, array in written)
        changed = written[0][1].dtype != weight.dtype
        source_bytes += weight.nbytes
        target_bytes += sum(weights.num_bytes(array) for _, array in written)
        elements += weight.size
        converted_elements += weight.size * changed
        num_converted += changed
    return PrecisionStats(source_bytes, target_bytes, num_converted, converted_elements / max(elements, 1))


def _weight(tensor: TensorProto, folder: Path) -> Weight:
    """Return a weight's values. onnx's own reader takes no file that has several links, as those of cut graphs have."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    place = {entry.key: entry.value for entry in tensor.external_data}
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    offset, count = int(place.get("offset", 0)), int(np.prod(tensor.dims))
    return np.fromfile(folder / place["location"], dtype, count, offset=offset).reshape(tensor.dims)


class _DataFile:
    """The file beside a model that its large weights lie in; there is none where no weight is large."""

    def __init__(self, target: Path) -> None:
        self._path = target.with_name(target.name + ".data")
        self._file: BinaryIO | None = None

    def __enter__(self) -> "_DataFile":
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def store(self, name: str, array: Weight) -> TensorProto:
        """Return an initialiser that holds ``array``, or says where in the file it lies."""
        num_bytes = weights.num_bytes(array)
        if num_bytes < _EXTERNAL_BYTES:
            return numpy_helper.from_array(array, name)
        if self._file is None:
            self._file = self._path.open("wb")
        self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
        place = {"location": self._path.name, "offset": str(self._file.tell()), "length": str(num_bytes)}
        self._file.write(weights.packed(array).data)
        tensor = TensorProto(
            name=name,
            dims=array.shape,
            data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in place.items():
            tensor.external_data.add(key=key, value=value)
        return tensor
