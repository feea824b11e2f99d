"""Group norms in a form that int8 engines need not copy: a scale and a shift of each channel, where the channels lie.

The exporter views [rows, C, h, w] as [rows, groups, …], which is no view of memory whose channels lie together, as
int8 convolutions have it: OpenVINO copies each tensor there and back. It fuses norms of float graphs, but not of those
with rounded activations (it decomposes them before), so this is for int8 alone: float engines are up to 1.8 times
slower with it. It pays where pixels are many, in decoders; a UNet's tensors are so small that what it saves in copies
it loses in the many small nodes (``benchmarks/unet_call``).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mezzotint.compile.graph.nodes import array_of, is_weight, new_node, new_weight, nodes_of, only_user, producer

_PICTURES = 4  # axes: rows, channels, height, width

Add: TypeAlias = Callable[..., ir.Value]
"""Adds a node, ``add(op_type, *inputs, **attributes)``, and returns what it makes."""


class Statistics(Protocol):
    """What a norm may take instead of what it measures."""

    def moments(self, add: Add, mean: ir.Value, square: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the mean and the mean square of each channel that count, by those of all its pixels."""
        ...

    def taken(self, add: Add, mean: ir.Value, deviation: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the mean and the deviation of each group, [rows, groups, 1, 1], that the norm takes, by its own."""
        ...


@dataclass(frozen=True, slots=True)
class GroupNorm:
    """The nodes of a group norm as the exporter writes it."""

    norm: ir.Node
    grouped: ir.Node
    back: ir.Node
    scaled: ir.Node
    shifted: ir.Node

    @property
    def groups(self) -> int:
        """Into how many its channels are divided."""
        return len(array_of(self.norm.inputs[1]))

    @property
    def rank(self) -> int:
        """The axes of what it is taken of: rows, channels, and those that are averaged."""
        return array_of(self.scaled.inputs[1]).ndim + 1


def group_norms(model: ir.Model) -> Iterator[GroupNorm]:
    """Yield the graph's group norms, in its order; each may be replaced before the next."""
    for norm in nodes_of(model, "InstanceNormalization"):
        grouped, back = producer(norm.inputs[0], "Reshape"), only_user(norm, "Reshape")
        scaled = only_user(back, "Mul") if back else None
        shifted = only_user(scaled, "Add") if scaled else None
        if grouped and back and scaled and shifted and _is_plain(norm) and _by_channel(scaled, shifted):
            yield GroupNorm(norm, grouped, back, scaled, shifted)


def channels_last_norms(model: ir.Model) -> int:
    """Make every group norm of pictures one multiplication and one addition.

    Wu & He 2018, arXiv 1803.08494, equations 1 to 3. Mean and mean square of each channel are averaged over its group,
    as [rows, groups, C / groups, 1]. The variance is E[x²] − E[x]², which loses digits only where a mean is hundreds of
    standard deviations. Exact in float32 but for rounding; the tensor that comes out keeps its name. Returns how many
    there were.
    """
    count = 0
    for found in group_norms(model):
        if found.rank == _PICTURES:
            replace_norm(model, found)
            count += 1
    return count


def _is_plain(norm: ir.Node) -> bool:
    """Return whether a norm's own scale is 1 and its shift 0: those of the group norm come after it."""
    scale, shift = norm.inputs[1], norm.inputs[2]
    return is_weight(scale) and is_weight(shift) and bool((array_of(scale) == 1).all() and (array_of(shift) == 0).all())


def _by_channel(scaled: ir.Node, shifted: ir.Node) -> bool:
    """Return whether gain and offset are weights that have one number for each channel."""
    gain, offset = scaled.inputs[1], shifted.inputs[1]
    return is_weight(gain) and is_weight(offset) and array_of(gain).shape[0] == array_of(gain).size > 0


def replace_norm(model: ir.Model, found: GroupNorm, statistics: Statistics | None = None) -> None:
    """Write a group norm out in single steps, which may take other statistics than its own."""
    shifted = found.shifted
    each = (1, found.groups, array_of(found.scaled.inputs[1]).size // found.groups, 1)
    old = shifted.outputs[0]
    name = str(old.name)
    old.name = f"{name}.replaced"
    weights = [
        new_weight(model, f"{name}.{key}", array_of(node.inputs[1]).reshape(each))
        for node, key in ((found.scaled, "gain"), (shifted, "offset"))
    ]
    nodes = _norm(model, found, name, weights, statistics)
    model.graph.insert_before(shifted, nodes)
    old.replace_all_uses_with(nodes[-1].outputs[0], replace_graph_outputs=True)
    view = found.back.inputs[1].producer() if found.back.inputs[1] is not None else None
    for node in (shifted, found.scaled, found.back, found.norm, found.grouped, *([view] if view else [])):
        if not any(output.consumers() or output.is_graph_output() for output in node.outputs):
            model.graph.remove(node, safe=True)


def _norm(
    model: ir.Model, found: GroupNorm, name: str, weights: Sequence[ir.Value], statistics: Statistics | None
) -> list[ir.Node]:
    """Return the nodes that make ``name``; ``weights`` are gain and offset, [1, groups, C / groups, 1]."""
    x, origin = found.grouped.inputs[0], found.shifted
    nodes: list[ir.Node] = []

    def add(op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        nodes.append(new_node(op_type, inputs, origin, f"{name}.{op_type.lower()}{len(nodes)}", **attributes))
        return nodes[-1].outputs[0]

    def constant(key: str, value: npt.NDArray[Any]) -> ir.Value:
        return new_weight(model, f"{name}.{key}", value)

    gain, offset = weights
    _, groups, share, _ = array_of(gain).shape
    if found.rank != _PICTURES:  # as attention has it: the exporter may group pixels in a row right from the picture
        x = add("Reshape", x, found.back.inputs[1])
    pixels, members = constant("pixels", np.arange(2, found.rank)), constant("members", np.array([2]))
    by_group = constant("by_group", np.array([0, groups, share, 1]))
    by_channel = constant("by_channel", np.array([0, groups * share, *(1,) * (found.rank - 2)]))
    mean, length = add("ReduceMean", x, pixels), add("ReduceL2", x, pixels)
    area = add("Cast", add("ReduceProd", add("Shape", x, start=2), keepdims=0), to=ir.DataType.FLOAT)
    square = add("Div", add("Mul", length, length), area)
    if statistics is not None:
        mean, square = statistics.moments(add, mean, square)
    mean = add("ReduceMean", add("Reshape", mean, by_group), members)
    square = add("ReduceMean", add("Reshape", square, by_group), members)
    variance = add("Relu", add("Sub", square, add("Mul", mean, mean)))
    epsilon = np.array(found.norm.attributes["epsilon"].as_float(), np.float32)
    deviation = add("Sqrt", add("Add", variance, constant("epsilon", epsilon)))
    if statistics is not None:
        mean, deviation = statistics.taken(add, mean, deviation)
    scale = add("Div", gain, deviation)
    shift = add("Sub", offset, add("Mul", mean, scale))
    product = add("Mul", x, add("Reshape", scale, by_channel))
    add("Add", product, add("Reshape", shift, by_channel))
    made = nodes[-1].outputs[0]
    made.name, made.shape, made.type = name, origin.outputs[0].shape, origin.outputs[0].type
    return nodes
