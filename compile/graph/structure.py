"""What an engine's speed hangs on: its graph, with the shapes and types of its weights but not their values."""

import hashlib
from pathlib import Path

import onnx
from onnx import GraphProto, TensorProto, numpy_helper

_SETTINGS = (TensorProto.INT64, TensorProto.BOOL)  # shapes, axes and masks; weights are floats or shorter integers


def structure_digest(source: Path) -> str:
    """Return a SHA-256 (hex) that is equal for ONNX models whose weights alone differ.

    Whole numbers of 64 bits count, since shapes and axes are among them, and whether a zero point is 0, since kernels
    leave that out. Weights that an optimiser found to be equal, and merged, count as if it had not.
    """
    graph = onnx.load(source, load_external_data=False).graph
    constants = {tensor.name: _described(tensor) for tensor in graph.initializer}
    digest = hashlib.sha256()
    for node in graph.node:
        bare = onnx.NodeProto(op_type=node.op_type, domain=node.domain, output=node.output, attribute=node.attribute)
        digest.update(bare.SerializeToString(deterministic=True))
        for name in node.input:
            digest.update(constants.get(name) or name.encode() + b"\n")
    digest.update(_ends(graph))
    return digest.hexdigest()


def _described(tensor: TensorProto) -> bytes:
    said = f"{list(tensor.dims)} {tensor.data_type}\n".encode()
    if tensor.data_location == TensorProto.EXTERNAL:
        return said
    if tensor.data_type in _SETTINGS:
        return said + numpy_helper.to_array(tensor).tobytes()
    if tensor.data_type == TensorProto.UINT8 and not tensor.dims:
        return said + bytes([bool(numpy_helper.to_array(tensor))])
    return said


def _ends(graph: GraphProto) -> bytes:
    return b"".join(value.SerializeToString(deterministic=True) for value in [*graph.input, *graph.output])
