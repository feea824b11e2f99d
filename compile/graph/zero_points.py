"""Takes zero points out of padded convolutions: what they add to an output is known before there is an input.

A convolution of uint8 activations with zero point z and scale s computes ``s·(q − z) ∗ w``. Padding is made of zeros,
which are z on the grid, so that a kernel has to treat borders apart: oneDNN's adds up the weights once more in every
call there, and multiplies the padding too. Without a zero point it does neither. ``s·q ∗ w``, padded with zeros, is
more by ``s·z`` times the sum of those taps that meet the picture, which is a constant of each place. All but the
border's part of it goes into the bias; the border's is one more addition, and there is no less that stays exact.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


@dataclass(frozen=True, slots=True)
class Offset:
    """What a convolution's output has too much without its zero point, as weights that the graph takes.

    Attributes:
        node: the name of the convolution.
        factor: minus scale times zero point, which multiplies sums of taps.
    """

    node: str
    factor: float

    @property
    def shift(self) -> str:
        """The name of the sum over all taps, float32 [out]."""
        return f"{self.node}.shift"

    @property
    def taps(self) -> str:
        """The name of the sums over input channels, float32 [out, 1, kernel height, kernel width]."""
        return f"{self.node}.taps"

    def weights(self, kernel: npt.NDArray[np.float32]) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
        """Yield name and values of both for the kernel that the engine multiplies by, [out, in, height, width]."""
        taps = self.factor * kernel.sum(axis=1, keepdims=True, dtype=np.float64)
        yield self.shift, taps.sum(axis=(1, 2, 3)).astype(np.float32)
        yield self.taps, taps.astype(np.float32)


def fold_zero_points(model: ModelProto) -> dict[str, list[Offset]]:
    """Rewrite the padded convolutions of rounded activations below the first level; exact but for rounding.

    At the first level, where convolutions have the fewest channels, pictures are large and borders small: there the
    addition costs what it saves. Returns, by the name of a kernel, the offsets whose weights the graph now takes.
    """
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    restored = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    widths = {
        node.name: values[node.input[1]].dims[0]
        for node in model.graph.node
        if node.op_type == "Conv"
        and any(_attribute(node, "pads", ()))
        and set(_attribute(node, "dilations", ())) <= {1}
        and node.input[0] in restored
        and node.input[1] in values
    }
    least = min(widths.values(), default=0)
    offsets: dict[str, list[Offset]] = {}
    writer = _Writer()
    for node in model.graph.node:
        pair = restored[node.input[0]] if widths.get(node.name, 0) > least else None
        scale, zero = (numpy_helper.to_array(values[name]) for name in pair.input[1:3]) if pair else (0.0, 0)
        if pair is None or not zero:
            writer.nodes.append(node)
            continue
        offset = Offset(node.name, -float(scale) * int(zero))
        offsets.setdefault(node.input[1], []).append(offset)
        _write_without_zero_point(writer, node, pair, offset, tuple(values[node.input[1]].dims[2:]))
    del model.graph.node[:]
    model.graph.node.extend(writer.nodes)
    model.graph.initializer.extend(writer.constants.values())
    return offsets


class _Writer:
    """Collects nodes, and the whole numbers they take."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def add(self, op_type: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; returns its output, which has its name."""
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def whole(self, *numbers: int, scalar: bool = False) -> str:
        """Return the name of an int64 constant: a vector, or one number."""
        name = f"whole.{'scalar.' if scalar else ''}{'.'.join(map(str, numbers))}"
        array = np.array(numbers[0] if scalar else numbers, np.int64)
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def _write_without_zero_point(
    writer: _Writer, node: NodeProto, pair: NodeProto, offset: Offset, kernel: tuple[int, ...]
) -> None:
    """Write what computes the same as ``node``, whose activation ``pair`` restores; ``kernel`` is (height, width)."""
    name, output = node.name, node.output[0]
    rounded, scale, _ = pair.input
    lifted = writer.add("DequantizeLinear", f"{name}.lifted", rounded, scale)
    bias = writer.add("Add", f"{name}.bias", node.input[2], offset.shift) if len(node.input) > 2 else offset.shift
    convolution = NodeProto()
    convolution.CopyFrom(node)
    del convolution.input[:]
    convolution.input.extend([lifted, node.input[1], bias])
    convolution.output[0] = f"{name}.shifted"
    writer.nodes.append(convolution)
    rows, columns = (_inside(writer, node, rounded, axis, kernel[axis]) for axis in (0, 1))
    each_row = writer.add("Unsqueeze", f"{rows}.each", rows, writer.whole(2))
    met = writer.add("Mul", f"{name}.met.rows", offset.taps, each_row)
    met = writer.add("ReduceSum", f"{name}.sum.rows", met, writer.whole(2), keepdims=0)
    met = writer.add("Unsqueeze", f"{name}.sum.rows.each", met, writer.whole(2))
    met = writer.add("Mul", f"{name}.met", met, columns)
    met = writer.add("ReduceSum", f"{name}.sum", met, writer.whole(3), keepdims=0)
    total = writer.add("Unsqueeze", f"{name}.shift.each", offset.shift, writer.whole(1, 2))
    border = writer.add("Sub", f"{name}.border", met, total)
    writer.nodes.append(helper.make_node("Add", [convolution.output[0], border], [output], name=f"{name}.bordered"))


def _inside(writer: _Writer, node: NodeProto, activation: str, axis: int, taps: int) -> str:
    """Write float32 [places, taps] along height (0) or width (1): 1 where an output's tap meets the picture, else 0."""
    name = f"{node.name}.inside{axis}"
    pads = _attribute(node, "pads", ())
    begin, end = pads[axis], pads[axis + 2]
    stride = _attribute(node, "strides", (1, 1))[axis]
    shape = writer.add("Shape", f"{name}.shape", activation, start=2 + axis, end=3 + axis)
    size = writer.add("Squeeze", f"{name}.size", shape)
    limit = writer.add("Add", f"{name}.limit", size, writer.whole(end - taps + 1, scalar=True))
    start, step = writer.whole(-begin, scalar=True), writer.whole(stride, scalar=True)
    first = writer.add("Range", f"{name}.first", start, limit, step)
    first = writer.add("Unsqueeze", f"{name}.first.each", first, writer.whole(1))
    places = writer.add("Add", f"{name}.places", first, writer.whole(*range(taps)))
    after = writer.add("GreaterOrEqual", f"{name}.after", places, writer.whole(0, scalar=True))
    before = writer.add("Less", f"{name}.before", places, size)
    both = writer.add("And", f"{name}.both", after, before)
    return writer.add("Cast", name, both, to=TensorProto.FLOAT)
