"""A decoder whose group norms say what they measured, and take what was measured elsewhere: for pictures in tiles.

A tile alone has another mean and deviation than its picture, so its colours would be others. Its norms take those of
the picture instead, seen in a small copy of it that the same engine decoded before. In a small copy more lies near the
border, where a convolution sees nothing beyond; so each norm measures the border and the rest apart, and both count as
much as they do in the picture.
"""

import numpy as np
import onnx_ir as ir

from mezzotint.compile.graph.decoder import scale_of
from mezzotint.compile.graph.nodes import new_node, new_weight
from mezzotint.compile.graph.norms import Add, group_norms, replace_norm
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import INNER, STATISTICS, TensorSpec
from mezzotint.engines.tiles import RING

GIVEN = "given"
"""The input that a tile's norms take their statistics from; other inputs and outputs are called as their roles."""

_FLOAT = ir.TensorType(ir.DataType.FLOAT)
_PICTURES = 4


def with_statistics(model: ir.Model) -> tuple[TensorSpec, TensorSpec, TensorSpec]:
    """Give the group norms inputs for statistics and an output of their own; returns the specs of all three.

    The first input and the output are [rows, 2, groups of all norms]: means and deviations, in the order in which the
    norms run. Where a given deviation is 0 the norm takes its own, as it did. The second input is [rows, 1]: the share
    of the picture that is further than ``RING`` latent pixels from its border; 0 is that of what the engine is shown.

    Raises:
        CompileError: the graph has no group norms.
    """
    rows = _rows(model)
    given, inner = ir.Value(name=GIVEN, type=_FLOAT), ir.Value(name=INNER, type=_FLOAT, shape=ir.Shape([rows, 1]))
    measured: list[_Opened] = []
    num_groups = 0
    last: ir.Node | None = None
    for found in group_norms(model):
        x = found.grouped.inputs[0]
        scale = scale_of(model, x) if x is not None and found.rank == _PICTURES else 0
        opened = _Opened(model, (given, inner), x, num_groups, found.groups, scale)
        num_groups += found.groups
        replace_norm(model, found, opened)
        measured.append(opened)
        last = found.shifted
    if last is None:
        raise CompileError("the decoder has no group norms, so its tiles need no statistics; decode it whole")
    shape = ir.Shape([rows, 2, num_groups])
    given.shape = shape
    model.graph.inputs.extend([given, inner])
    model.graph.outputs.append(_joined(model, measured, last, shape))
    both = ("rows", 2, num_groups)
    return (
        TensorSpec(name=GIVEN, role=STATISTICS, dtype="float32", axes=both),
        TensorSpec(name=INNER, role=INNER, dtype="float32", axes=("rows", 1)),
        TensorSpec(name=STATISTICS, role=STATISTICS, dtype="float32", axes=both),
    )


class _Opened:
    """One norm's statistics: ``groups`` of all, from ``first`` on, of a tensor ``scale`` times the latents' size.

    A ``scale`` of 0 is that of pixels in a row, as attention has them, whose border is not told apart.
    """

    def __init__(
        self,
        model: ir.Model,
        inputs: tuple[ir.Value, ir.Value],
        x: ir.Value | None,
        first: int,
        groups: int,
        scale: int,
    ) -> None:
        self._model = model
        self._given, self._inner = inputs
        self._x = x
        self._first = first
        self._groups = groups
        self._scale = scale
        self.own: list[ir.Value] = []
        """Its own mean and deviation, [rows, 1, groups]."""

    def moments(self, add: Add, mean: ir.Value, square: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Count the border and the rest as much as ``inner`` says.

        With areas A of all and I of the rest, whose share is to be s: all · A(1 − s) / (A − I) + rest · (s − I(1 − s) /
        (A − I)), which is all where s = I / A.
        """
        if not self._scale:
            return mean, square
        ring = self._scale * RING
        begins, ends, axes = (self._whole(k, v) for k, v in (("b", [ring] * 2), ("e", [-ring] * 2), ("a", [2, 3])))
        rest = add("Slice", self._x, begins, ends, axes)
        length = add("ReduceL2", rest, axes)
        all_area, rest_area = self._area(add, self._x), self._area(add, rest)
        rest_mean, rest_square = add("ReduceMean", rest, axes), add("Div", add("Mul", length, length), rest_area)
        share = add("Reshape", self._inner, self._whole("by_row", [0, 1, 1, 1]))
        nothing, one = self._number("nothing", 0.0), self._number("one", 1.0)
        dense = add("Div", add("Sub", one, share), add("Sub", all_area, rest_area))
        is_given = add("Greater", share, nothing)
        of_all = add("Where", is_given, add("Mul", all_area, dense), one)
        of_rest = add("Where", is_given, add("Sub", share, add("Mul", rest_area, dense)), nothing)
        return (
            add("Add", add("Mul", mean, of_all), add("Mul", rest_mean, of_rest)),
            add("Add", add("Mul", square, of_all), add("Mul", rest_square, of_rest)),
        )

    def taken(self, add: Add, mean: ir.Value, deviation: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Take what is given, where that has a deviation above 0."""
        as_listed = self._whole("as_listed", [0, 1, self._groups])
        self.own = [add("Reshape", mean, as_listed), add("Reshape", deviation, as_listed)]
        given_mean, given_deviation = (self._part(add, kind) for kind in (0, 1))
        is_given = add("Greater", given_deviation, self._number("none", 0.0))
        return add("Where", is_given, given_mean, mean), add("Where", is_given, given_deviation, deviation)

    def _part(self, add: Add, kind: int) -> ir.Value:
        """Return the given means, of kind 0, or deviations, as [rows, groups, 1, 1]."""
        begins = self._whole(f"{kind}.begins", [kind, self._first])
        ends = self._whole(f"{kind}.ends", [kind + 1, self._first + self._groups])
        part = add("Slice", self._given, begins, ends, self._whole(f"{kind}.axes", [1, 2]))
        return add("Reshape", part, self._whole(f"{kind}.as_taken", [0, self._groups, 1, 1]))

    def _area(self, add: Add, x: ir.Value | None) -> ir.Value:
        return add("Cast", add("ReduceProd", add("Shape", x, start=2), keepdims=0), to=ir.DataType.FLOAT)

    def _whole(self, key: str, values: list[int]) -> ir.Value:
        return new_weight(self._model, f"{GIVEN}.{self._first}.{key}", np.array(values, np.int64))

    def _number(self, key: str, value: float) -> ir.Value:
        return new_weight(self._model, f"{GIVEN}.{self._first}.{key}", np.array(value, np.float32))


def _joined(model: ir.Model, measured: list[_Opened], origin: ir.Node, shape: ir.Shape) -> ir.Value:
    """Return the output that lists all means and deviations, [rows, 2, groups of all norms]."""
    kinds = [
        new_node("Concat", values, origin, f"{STATISTICS}.{kind}", axis=2)
        for kind, values in enumerate(zip(*(opened.own for opened in measured), strict=True))
    ]
    both = new_node("Concat", [node.outputs[0] for node in kinds], origin, STATISTICS, axis=1)
    both.outputs[0].shape, both.outputs[0].type = shape, _FLOAT
    model.graph.extend([*kinds, both])
    return both.outputs[0]


def _rows(model: ir.Model) -> ir.SymbolicDim | int:
    shape = model.graph.inputs[0].shape
    if shape is None:
        raise CompileError("the decoder's input has no shape; export it again")
    return shape[0]
