"""Cuts an ONNX model between named tensors. Weights stay where they are on disk: only the graph is read and written.

The parts compute exactly what the whole did, since every node, attribute and weight is kept as it is.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from mezzotint.compile.folders import link
from mezzotint.engines.errors import CompileError


def read(path: Path) -> ir.Model:
    """Read an exported model; weights beside it are mapped, not read. Raises CompileError."""
    try:
        return ir.load(path)
    except Exception as error:  # onnx and protobuf have no common base of their errors
        raise CompileError(f"{path}: is no ONNX model that can be read ({error}); export it again") from error


def cut(model: ir.Model, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> ir.Model:
    """Return what computes ``outputs`` from ``inputs``; both map a tensor's name in ``model`` to its name in the part.

    An inner tensor may be an input, an output, or one in each of two parts. Inputs that nothing needs stay, unused.

    Raises:
        CompileError: there is no such tensor, or more than ``inputs`` is needed.
    """
    try:
        graph = ir.convenience.extract(model.graph, list(inputs), list(outputs))
    except ValueError as error:
        raise CompileError(f"the graph cannot be cut at {', '.join(inputs)}: {error}") from error
    _as_ordered_in(model, graph)
    for values, names in ((graph.inputs, inputs.values()), (graph.outputs, outputs.values())):
        for value, name in zip(values, names, strict=True):
            value.name = name
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=tuple(model.functions.values()),
    )


def write(model: ir.Model, source: Path, target: Path) -> None:
    """Write a part of the model ``source`` as ``target``; a weight file of the source is linked, not copied.

    Raises:
        CompileError: ``target`` lies in the source's own folder, whose files would be overwritten.
    """
    if source.parent.resolve() == target.parent.resolve():
        raise CompileError(f"{target}: lies beside the model that it is cut from; write it to another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    ir.save(model, target)
    weights = [value.const_value for value in model.graph.initializers.values()]
    for name in sorted({str(weight.location) for weight in weights if isinstance(weight, ir.ExternalTensor)}):
        link(source.parent / name, target.parent / name)


def _as_ordered_in(model: ir.Model, graph: ir.Graph) -> None:
    """Put a part's weights in the whole's order, which the extraction forgets: equal cuts are to be equal files."""
    place = {name: i for i, name in enumerate(model.graph.initializers)}
    values = sorted(graph.initializers.values(), key=lambda value: place[str(value.name)])
    graph.initializers.clear()
    for value in values:
        graph.initializers.add(value)
