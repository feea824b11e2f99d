"""How a precision stores large weights: in a smaller float type, as int8 by output channel, as int4 by input groups.

Each pass puts nodes before the graph that restore float32, and returns what is to be done with each weight, so that
weights can be read, converted and written one after the other.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper

from mezzotint.compile.graph.quantise import MAX_FLOAT8, MIN_CHANNELS
from mezzotint.compile.graph.zero_points import Offset

Weight: TypeAlias = npt.NDArray[Any]
Named: TypeAlias = Iterator[tuple[str, Weight]]
Convert: TypeAlias = Callable[[str, Weight], Named]

_MIN_ELEMENTS = 4096  # smaller weights stay float32: they save nothing, and biases and norms are among them
_MAX_FLOAT16 = float(np.finfo(np.float16).max)
_GROUPS = (64, 32)  # input channels that share a scale; 64 divides every width of Stable Diffusion
_INT4_OPSET = 21  # the first that knows int4 and groups


def unchanged(name: str, weight: Weight) -> Named:
    """Keep a weight as it is."""
    yield name, weight


def retyped(names: set[str]) -> Convert:
    """Convert the named weights to float16 where they are."""

    def convert(name: str, weight: Weight) -> Named:
        yield name, _clipped(weight, np.dtype(np.float16)) if name in names else weight

    return convert


def halved(convert: Convert, names: set[str]) -> Convert:
    """Make float16 of what ``convert`` gives in float32 for the named weights: the values, or their scales."""

    def convert_all(name: str, weight: Weight) -> Named:
        for written, array in convert(name, weight):
            is_half = name in names and array.dtype == np.float32
            yield written, _clipped(array, np.dtype(np.float16)) if is_half else array

    return convert_all


def float8_weights(model: ModelProto) -> Convert:
    """Store large weights as E4M3 floats with a symmetric scale for each output channel."""
    return _restored(model, _by_channel_float8)


def stored_as(model: ModelProto, dtype: np.dtype[Any]) -> Convert:
    """Store large weights as ``dtype``, cast to float32 in the graph: the runtime folds or fuses the cast."""
    large = _large_weights(model)
    _prepend(model, [helper.make_node("Cast", [f"{name}.stored"], [name], to=TensorProto.FLOAT) for name in large])

    def convert(name: str, weight: Weight) -> Named:
        yield (f"{name}.stored", _clipped(weight, dtype)) if name in large else (name, weight)

    return convert


def int8_weights(model: ModelProto) -> Convert:
    """Store large weights as int8 with a symmetric scale for each output channel."""
    return _restored(model, _by_channel)


def _restored(model: ModelProto, store: Callable[[Weight, int], tuple[Weight, Weight]]) -> Convert:
    """Store large weights in eight bits, restored in the graph by a DequantizeLinear."""
    large = _large_weights(model)
    _prepend(
        model,
        [
            helper.make_node("DequantizeLinear", [f"{name}.stored", f"{name}.scale"], [name], axis=axis)
            for name, axis in large.items()
        ],
    )

    def convert(name: str, weight: Weight) -> Named:
        if name not in large:
            yield name, weight
            return
        stored, scale = store(weight, large[name])
        yield f"{name}.stored", stored
        yield f"{name}.scale", scale.reshape(-1)

    return convert


def int4_weights(model: ModelProto) -> Convert:
    """Store the weights of linear layers as int4 with a scale for each group of input channels, others as int8.

    Convolutions unpack theirs at load in every runtime, so that four bits would cost quality and no less memory. A
    linear layer whose width no group divides is stored as they are. These int8 weights are restored by nodes that ONNX
    Runtime folds at load; a DequantizeLinear it would run in every call, since its sessions leave those to be fused.
    """
    large = _large_weights(model)
    groups = {name: group for name, group in _groups(model, large).items() if group}
    nodes: list[NodeProto] = []
    for name, axis in large.items():
        stored, scale = f"{name}.stored", f"{name}.scale"
        if name in groups:
            nodes.append(
                helper.make_node("DequantizeLinear", [stored, scale], [name], axis=1 - axis, block_size=groups[name])
            )
        else:
            nodes.append(helper.make_node("Cast", [stored], [f"{name}.cast"], to=TensorProto.FLOAT))
            nodes.append(helper.make_node("Mul", [f"{name}.cast", scale], [name]))
    _prepend(model, nodes)
    if groups:
        _raise_opset(model)

    def convert(name: str, weight: Weight) -> Named:
        if name not in large:
            yield name, weight
            return
        axis = large[name]
        stored, scale = _by_group(weight, 1 - axis, groups[name]) if name in groups else _by_channel(weight, axis)
        yield f"{name}.stored", stored
        yield f"{name}.scale", scale

    return convert


def with_offsets(convert: Convert, offsets: Mapping[str, Sequence[Offset]]) -> Convert:
    """Write beside each int8 kernel the weights of its offsets, sums of what the engine multiplies by."""

    def convert_all(name: str, weight: Weight) -> Named:
        written = list(convert(name, weight))
        yield from written
        if name in offsets:
            stored, *scale = (array for _, array in written)
            kernel = stored * scale[0].reshape(-1, 1, 1, 1) if scale else stored
            for offset in offsets[name]:
                yield from offset.weights(kernel)

    return convert_all


def num_bytes(weight: Weight) -> int:
    """Return the bytes of a weight in a file, where two int4 values share one."""
    return (weight.size + 1) // 2 if weight.dtype == ml_dtypes.int4 else weight.nbytes


def packed(weight: Weight) -> npt.NDArray[np.uint8]:
    """Return a weight's bytes as ONNX stores them, uint8 [n]; of two int4 values the first takes the low half."""
    flat = np.ascontiguousarray(weight).reshape(-1)
    if weight.dtype != ml_dtypes.int4:
        return flat.view(np.uint8)
    nibbles = np.zeros(2 * num_bytes(weight), np.uint8)
    nibbles[: flat.size] = flat.astype(np.int8).view(np.uint8) & 0xF
    low_and_high = nibbles[0::2] | nibbles[1::2] << 4
    return np.asarray(low_and_high, np.uint8)


def _large_weights(model: ModelProto) -> dict[str, int]:
    """Return the weights worth converting, each with the axis of its output channels."""
    large = {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= _MIN_ELEMENTS
    }
    axes: dict[str, set[int]] = {}
    for node in model.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "Conv" and min(large.get(name, ())[:2], default=0) >= MIN_CHANNELS:
            axes.setdefault(name, set()).add(0)
        elif node.op_type in ("Gemm", "MatMul") and len(large.get(name, ())) == 2:
            transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            axes.setdefault(name, set()).add(0 if transposed else 1)
    return {name: found.pop() for name, found in axes.items() if len(found) == 1}


def _groups(model: ModelProto, large: dict[str, int]) -> dict[str, int]:
    """Return how many input channels of each linear layer share a scale, 0 where no group divides their number."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    widths = {name: shapes[name][1 - axis] for name, axis in large.items() if len(shapes[name]) == 2}
    return {name: next((size for size in _GROUPS if width % size == 0), 0) for name, width in widths.items()}


def _raise_opset(model: ModelProto) -> None:
    """Declare the opset that knows int4; what exports hold means the same in both but for GroupNormalization."""
    for opset in model.opset_import:
        if not opset.domain:
            opset.version = max(opset.version, _INT4_OPSET)


def _prepend(model: ModelProto, nodes: list[NodeProto]) -> None:
    rest = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes + rest)


def _by_channel(weight: Weight, axis: int) -> tuple[Weight, Weight]:
    """Return (int8 values, float32 scales that broadcast) with one symmetric scale for each index of ``axis``."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.rint(weight / scale).clip(-127, 127).astype(np.int8), scale


def _by_channel_float8(weight: Weight, axis: int) -> tuple[Weight, Weight]:
    """Return (E4M3 values, float32 scales that broadcast) with the largest value of each channel at the type's end."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others, keepdims=True)
    scale = np.where(largest > 0, largest / MAX_FLOAT8, 1).astype(np.float32)
    return (weight / scale).clip(-MAX_FLOAT8, MAX_FLOAT8).astype(ml_dtypes.float8_e4m3fn), scale


def _by_group(weight: Weight, axis: int, size: int) -> tuple[Weight, Weight]:
    """Return (int4 values of the same shape, float32 scales), one scale for every ``size`` neighbours along ``axis``.

    A scale has the sign that puts the largest value of its group at −8, the end that is one step longer than the other;
    against scales of ±7 steps it is 1 dB closer.
    """
    rows = np.moveaxis(weight, axis, 0)
    blocks = rows.reshape(-1, size, rows.shape[1])
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1, keepdims=True), axis=1)
    scale = np.where(largest == 0, 1, largest / -8).astype(np.float32)
    values = np.rint(blocks / scale).clip(-8, 7).reshape(rows.shape)
    stored = np.moveaxis(values, 0, axis).astype(ml_dtypes.int4)
    return stored, np.ascontiguousarray(np.moveaxis(scale[:, 0], 0, axis))


def _clipped(weight: Weight, dtype: np.dtype[Any]) -> Weight:
    """Return ``weight`` as ``dtype``; in float16 finite values stay finite, infinities of masks stay infinite."""
    if dtype == np.float16:
        weight = np.where(np.isfinite(weight), weight.clip(-_MAX_FLOAT16, _MAX_FLOAT16), weight)
    return weight.astype(dtype)
