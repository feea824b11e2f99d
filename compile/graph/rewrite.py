"""Rewrites of an exported graph that cost engines less and compute the same, exact in float32 but for rounding.

Each is one function of the model that returns how often it applied. None knows a model's sizes: a rewrite looks for a
shape of the graph, and where it is not found does nothing.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from mezzotint.compile.graph.nodes import (
    array_of,
    drop_unused_weights,
    is_weight,
    new_node,
    new_weight,
    nodes_of,
    producer,
)

Rewrite: TypeAlias = Callable[[ir.Model], int]

_EXTERNAL_BYTES = 1 << 16
_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# Of three taps on a picture that is doubled, those that meet one pixel of the picture: even phase, then odd phase.
_TAPS = (((0,), (1, 2)), ((0, 1), (2,)))


def split_gated_units(model: ir.Model) -> int:
    """Make a gated unit's two halves two linear layers, so that no runtime copies halves out of their product.

    GEGLU (Shazeer 2020, arXiv 2002.05202, equation 6): ``Split(x W + b)`` becomes ``x W₁ + b₁`` and ``x W₂ + b₂``.
    """
    count = 0
    for split in nodes_of(model, "Split"):
        bias = producer(split.inputs[0], "Add")
        product = producer(bias.inputs[0], "MatMul") if bias else None
        if not (bias and product) or not (is_weight(bias.inputs[1]) and is_weight(product.inputs[1])):
            continue
        if len(split.outputs) != 2 or not _is_last_axis(split):
            continue
        weights, biases = np.split(array_of(product.inputs[1]), 2, axis=1), np.split(array_of(bias.inputs[1]), 2)
        for half, (output, weight, shift) in enumerate(zip(split.outputs, weights, biases, strict=True)):
            kernel = new_weight(model, f"{_named(product, 1)}.half{half}", weight)
            offset = new_weight(model, f"{_named(bias, 1)}.half{half}", shift)
            linear = new_node("MatMul", [product.inputs[0], kernel], product, f"{output.name}.product")
            added = new_node("Add", [linear.outputs[0], offset], bias, f"{output.name}.half", like=output)
            model.graph.insert_before(split, [linear, added])
            output.replace_all_uses_with(added.outputs[0])
        _drop(model, split, bias, product)
        count += 1
    return count


def split_shortcuts(model: ir.Model) -> int:
    """Make a 1×1 convolution of joined tensors a sum of one for each: none of them is copied or shares a scale.

    The two that a UNet's skip connection joins differ in range by far (Q-Diffusion, Li et al. 2023, arXiv 2302.04304,
    section 4.2), so that in int8 each takes a scale of its own.
    """
    count = 0
    for convolution in nodes_of(model, "Conv"):
        joined = producer(convolution.inputs[0], "Concat")
        weight = convolution.inputs[1]
        if joined is None or not is_weight(weight) or not _is_plain(convolution):
            continue
        if array_of(weight).shape[2:] != (1, 1):
            continue
        channels = [
            value.shape[1] if value is not None and value.shape is not None else None for value in joined.inputs
        ]
        if not all(isinstance(c, int) for c in channels) or joined.attributes["axis"].as_int() != 1:
            continue
        ends = np.cumsum([0, *channels])
        parts = []
        for i, (value, (first, end)) in enumerate(zip(joined.inputs, pairwise(ends), strict=True)):
            kernel = new_weight(model, f"{_named(convolution, 1)}.part{i}", array_of(weight)[:, first:end])
            inputs = [value, kernel, *(convolution.inputs[2:] if i == 0 else ())]
            parts.append(_convolution(inputs, convolution, f"{convolution.outputs[0].name}.part{i}", (1, 1), (0,) * 4))
        total = parts[0].outputs[0]
        nodes: list[ir.Node] = list(parts)
        for i, part in enumerate(parts[1:], start=1):
            name = f"{convolution.outputs[0].name}.sum{i}"
            nodes.append(new_node("Add", [total, part.outputs[0]], convolution, name, like=convolution.outputs[0]))
            total = nodes[-1].outputs[0]
        _replace(model, convolution, nodes)
        _drop(model, joined)
        count += 1
    return count


def upsample_by_phases(model: ir.Model) -> int:
    """Make a 3×3 convolution of a picture doubled by nearest neighbours four 2×2 convolutions of the picture itself.

    Each output pixel of one phase (row and column even or odd) meets only 2×2 different input pixels, so taps that
    meet the same one are added up: 16 of 36 multiplications are left. The phases are joined on channels and
    interleaved by DepthToSpace. Zero padding stays exact.
    """
    count = 0
    for resize in nodes_of(model, "Resize"):
        users = resize.outputs[0].consumers()
        if len(users) != 1 or users[0].op_type != "Conv" or not _doubles(resize):
            continue
        convolution = users[0]
        weight = convolution.inputs[1]
        if not is_weight(weight) or array_of(weight).shape[2:] != (3, 3) or not _is_plain(convolution, pad=1):
            continue
        kernels = array_of(weight)
        phases = []
        for row, column in _PHASES:
            name = f"{_named(convolution, 1)}.phase{row}{column}"
            inputs = [resize.inputs[0], new_weight(model, name, _phase(kernels, row, column)), *convolution.inputs[2:]]
            pads = (1 - row, 1 - column, row, column)
            name = f"{convolution.outputs[0].name}.phase{row}{column}"
            phases.append(_convolution(inputs, convolution, name, (2, 2), pads))
        joined = new_node(
            "Concat", [p.outputs[0] for p in phases], convolution, f"{convolution.outputs[0].name}.phases", axis=1
        )
        woven = new_node(
            "DepthToSpace", joined.outputs, convolution, "", like=convolution.outputs[0], blocksize=2, mode="DCR"
        )
        woven.outputs[0].name = f"{convolution.outputs[0].name}.woven"
        _replace(model, convolution, [*phases, joined, woven])
        model.graph.remove(resize, safe=True)
        count += 1
    return count


REWRITES: tuple[Rewrite, ...] = (split_gated_units, split_shortcuts, upsample_by_phases)


def rewrite(source: Path, target: Path, rewrites: Iterable[Rewrite] = REWRITES) -> dict[str, int]:
    """Write the model ``source`` as ``target`` after ``rewrites``; returns how often each applied."""
    model = ir.load(source)
    counts = {apply.__name__: apply(model) for apply in rewrites}
    drop_unused_weights(model)
    ir.save(model, target, external_data=f"{target.name}.data", size_threshold_bytes=_EXTERNAL_BYTES)
    return counts


def _phase(kernels: npt.NDArray[np.float32], row: int, column: int) -> npt.NDArray[np.float32]:
    """Return float32 [out, in, 2, 2]: the taps of [out, in, 3, 3] that meet the same pixel, added up."""
    rows = np.stack([kernels[:, :, list(taps), :].sum(axis=2) for taps in _TAPS[row]], axis=2)
    return np.stack([rows[:, :, :, list(taps)].sum(axis=3) for taps in _TAPS[column]], axis=3)


def _named(node: ir.Node, index: int) -> str:
    """Return the name of an input."""
    value = node.inputs[index]
    return str(value.name) if value is not None else ""


def _is_last_axis(split: ir.Node) -> bool:
    shape = split.inputs[0].shape if split.inputs[0] is not None else None
    axis = split.attributes["axis"].as_int() if "axis" in split.attributes else 0
    return axis == -1 or (shape is not None and axis == len(shape) - 1)


def _is_plain(convolution: ir.Node, pad: int = 0) -> bool:
    """Return whether a convolution has stride 1, no dilation, one group and ``pad`` on every side."""
    wanted = {"strides": {1}, "dilations": {1}, "pads": {pad}}
    attributes = convolution.attributes
    if "group" in attributes and attributes["group"].as_int() != 1:
        return False
    if pad and "pads" not in attributes:
        return False
    return all(set(attributes[name].as_ints()) == values for name, values in wanted.items() if name in attributes)


def _doubles(resize: ir.Node) -> bool:
    """Return whether a resize doubles height and width by nearest neighbours."""
    text = {
        name: attribute.as_string()
        for name, attribute in resize.attributes.items()
        if attribute.type is ir.AttributeType.STRING
    }
    scales = resize.inputs[2] if len(resize.inputs) > 2 else None
    if text.get("mode", "nearest") != "nearest" or not is_weight(scales):
        return False
    exact = text.get("coordinate_transformation_mode") == "asymmetric" and text.get("nearest_mode") == "floor"
    return exact and array_of(scales).tolist() == [1.0, 1.0, 2.0, 2.0]


def _convolution(
    inputs: Iterable[ir.Value | None], origin: ir.Node, name: str, kernel: tuple[int, ...], pads: tuple[int, ...]
) -> ir.Node:
    return new_node("Conv", inputs, origin, name, kernel_shape=kernel, pads=pads, strides=(1, 1))


def _replace(model: ir.Model, old: ir.Node, nodes: list[ir.Node]) -> None:
    """Put ``nodes`` in place of ``old``; the last one's output takes over from its output."""
    model.graph.insert_before(old, nodes)
    before, after = old.outputs[0], nodes[-1].outputs[0]
    if before.is_graph_output():
        before.name, after.name = f"{before.name}.replaced", before.name
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    model.graph.remove(old, safe=True)


def _drop(model: ir.Model, *nodes: ir.Node) -> None:
    """Remove nodes that nothing uses any more, users first."""
    for node in nodes:
        if not any(output.consumers() or output.is_graph_output() for output in node.outputs):
            model.graph.remove(node, safe=True)
