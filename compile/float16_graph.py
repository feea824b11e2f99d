"""Types a float32 ONNX graph as float16, with casts where the two meet; inputs and outputs stay float32.

CUDA and TensorRT compute in the types that the graph says. Only the graph is changed; the caller converts the weights.
"""

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from mezzotint.engines.errors import CompileError

# Sums over thousands of elements and exponentials, which would lose bits or overflow, and what gives its own type.
# Softmax is not among them: its inputs are small and its runtimes sum in float32 (measured: no difference).
_FLOAT32_OPS = {
    "InstanceNormalization", "LayerNormalization", "GroupNormalization", "LogSoftmax", "Exp", "Pow", "ReduceMean",
    "ReduceSum", "ReduceL2", "ReduceSumSquare", "CumSum", "Range", "Cast", "CastLike", "Sin", "Cos",
}  # fmt: skip
_FLOAT32_SLOTS = {"Resize": (1, 2)}  # inputs that ONNX wants in float32 whatever the type of the others


def to_float16_graph(model: ModelProto) -> set[str]:
    """Change ``model`` in place and return the names of the weights that have to become float16.

    Raises:
        CompileError: a tensor's type cannot be inferred, or the graph has functions or branches.
    """
    graph = model.graph
    if model.functions or any(a.type == a.GRAPH for node in graph.node for a in node.attribute):
        raise CompileError("precision fp16: the graph has functions or branches, which the pass cannot type; use fp32")
    floats = _float32_names(model)
    half = _half_nodes(model, floats)
    produced = {name for node, is_half in zip(graph.node, half, strict=True) if is_half for name in node.output}
    wanted: dict[str, set[int]] = {}
    for node, is_half in zip(graph.node, half, strict=True):
        for slot, name in enumerate(node.input):
            wanted.setdefault(name, set()).add(_wanted_type(node, slot, is_half=is_half))
    weights = {t.name for t in graph.initializer if t.name in floats and wanted.get(t.name) == {TensorProto.FLOAT16}}
    halves = (produced | weights) & floats
    nodes: list[NodeProto] = []
    casts: dict[tuple[str, int], str] = {}
    for node, is_half in zip(graph.node, half, strict=True):
        for slot, name in enumerate(node.input):
            have = TensorProto.FLOAT16 if name in halves else TensorProto.FLOAT
            want = _wanted_type(node, slot, is_half=is_half)
            if name not in floats or have == want:
                continue
            if (name, want) not in casts:
                casts[name, want] = f"{name}.float{16 if want == TensorProto.FLOAT16 else 32}"
                nodes.append(helper.make_node("Cast", [name], [casts[name, want]], to=want))
            node.input[slot] = casts[name, want]
        nodes.append(node)
    nodes += _float32_outputs(model, nodes, halves)
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    return weights


def _wanted_type(node: NodeProto, slot: int, *, is_half: bool) -> int:
    keeps = slot in _FLOAT32_SLOTS.get(node.op_type, ())
    return int(TensorProto.FLOAT16 if is_half and not keeps else TensorProto.FLOAT)


def _float32_names(model: ModelProto) -> set[str]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.value_info, *graph.output]}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    unknown = {name for node in graph.node for name in node.output if name} - {n for n, type_ in types.items() if type_}
    if unknown:
        raise CompileError(f"precision fp16: the type of {min(unknown)} in the graph is unknown; use fp32")
    return {name for name, type_ in types.items() if type_ == TensorProto.FLOAT}


def _half_nodes(model: ModelProto, floats: set[str]) -> list[bool]:
    """Return for each node whether it computes in float16; what leads to a sine (the timesteps) does not."""
    to_sine: set[str] = set()
    half: list[bool] = []
    for node in reversed(model.graph.node):
        leads_to_sine = node.op_type in ("Sin", "Cos") or not to_sine.isdisjoint(node.output)
        if leads_to_sine:
            to_sine.update(floats.intersection(node.input))
        gives = node.op_type == "QuantizeLinear" or not floats.isdisjoint(node.output)
        touches = gives and not floats.isdisjoint(node.input)
        half.append(touches and not leads_to_sine and node.op_type not in _FLOAT32_OPS)
    return half[::-1]


def _float32_outputs(model: ModelProto, nodes: list[NodeProto], halves: set[str]) -> list[NodeProto]:
    """Rename the graph's outputs that are float16 now and return the casts that give them back their names."""
    names = {output.name: f"{output.name}.float16" for output in model.graph.output if output.name in halves}
    for node in nodes:
        for slots in (node.input, node.output):
            for i, name in enumerate(slots):
                slots[i] = names.get(name, name)
    return [helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT) for name, half in names.items()]
