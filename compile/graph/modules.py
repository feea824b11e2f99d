"""Finds the tensors of an exported graph by the torch modules that made them.

torch.onnx notes on every node the path of its module, such as ``unet.up_blocks.2.attentions.1``.
"""

import ast

import onnx_ir as ir
from onnx import NodeProto

from mezzotint.engines.errors import CompileError

_SCOPES = "pkg.torch.onnx.name_scopes"


def output_of(model: ir.Model, path: str) -> ir.Value:
    """Return the tensor that the module at ``path`` gives to those after it. Raises CompileError where there is none.

    It is the last tensor of the module that anything outside it uses: the exporter may share others (a shape, an
    activation that two modules take), but computes them before the output, which depends on all of the module.
    """
    inside = {node for node in model.graph if path in _scopes(node)}
    for node in reversed(model.graph):
        if node in inside:
            for value in node.outputs:
                if value.is_graph_output() or any(user not in inside for user in value.consumers()):
                    return value
    raise CompileError(f"the exported graph has no output of a module {path}; compile with the torch that is pinned")


def path_of(node: NodeProto) -> str:
    """Return the path of the module that made a node; empty for nodes of the exporter's own.

    A node of a converted program has the names of its modules, outermost first, and its own.
    """
    notes = {entry.key: entry.value for entry in node.metadata_props}
    *paths, _own = ast.literal_eval(notes.get(_SCOPES, "['']"))
    return str(paths[-1]) if paths else ""


def num_channels(value: ir.Value) -> int:
    """Return the channels of a tensor of rows, channels, height and width. Raises CompileError for any other."""
    if value.shape is None or len(value.shape) != 4 or not isinstance(value.shape[1], int):
        raise CompileError(f"{value.name}: has shape {value.shape}, expected rows, channels, height and width")
    return value.shape[1]


def _scopes(node: ir.Node) -> list[str]:
    """Return the paths of the modules around a node, outermost first; none for nodes of the exporter's own."""
    paths: list[str] = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    return paths
