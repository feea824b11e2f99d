"""A module of one input and one output as the compiler exports it, with random weights that are the same each time."""

from pathlib import Path

import torch

from mezzotint.compile.export import Part, export_graph, fill
from mezzotint.engines.manifest import TensorSpec


def exported(module: torch.nn.Module, shape: tuple[int, ...], target: Path) -> Path:
    """Write the ONNX model ``target`` of ``y = module(x)`` and return it."""
    torch.manual_seed(0)
    for weight in module.parameters():
        torch.nn.init.normal_(weight)
    x, y = (TensorSpec(name=name, role=name, dtype="float32", axes=shape) for name in ("x", "y"))
    graph = target.with_suffix(".graph")
    names = export_graph(Part(module, (torch.randn(shape),), (x,), (y,), {}), graph)
    state = module.state_dict()
    fill(graph, {name: state[name] for name in names}, target)
    return target
