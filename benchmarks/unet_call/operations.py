"""What a graph multiplies: operations by node, and which of them a compiled model did in int8, by its own account."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov

_COUNTED = ("Convolution", "MatMul")
_SEE_THROUGH = ("Reshape", "Transpose", "Unsqueeze", "Squeeze", "Multiply", "Convert")
_LAYERS = ("FullyConnected", "FullyConnectedCompressed", "FullyConnectedQuantizedLegacy")
_MULTIPLYING = ("Convolution", "MatMul", "Subgraph", *_LAYERS)
_EIGHT_BITS = ("i8", "u8")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of node of a compiled model: its milliseconds, and the GFLOP that it multiplied (GOP in int8)."""

    kind: str
    kernel: str
    count: int
    ms: float
    gflop: float


def counted(model: ov.Model) -> dict[str, float]:
    """Return the GFLOP of every convolution and matrix product of a model with static shapes, by node name."""
    found = {}
    for node in model.get_ops():
        if node.get_type_name() not in _COUNTED:
            continue
        weights = list(node.input(1).get_partial_shape().to_shape())
        if node.get_type_name() == "MatMul":
            inner = weights[-1 if node.get_attributes()["transpose_b"] else -2]
        else:
            inner = int(np.prod(weights[1:]))
        outputs = int(np.prod(list(node.output(0).get_partial_shape().to_shape())))
        found[node.get_friendly_name()] = 2e-9 * outputs * inner
    return found


def rounded(model: ov.Model) -> set[str]:
    """Return the matrix products and convolutions whose two inputs are both of 8 bits in the graph."""
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() in _COUNTED and all(_is_rounded(node.input_value(i).get_node()) for i in range(2))
    }


def _is_rounded(node: Any) -> bool:
    kind = node.get_type_name()
    if kind == "FakeQuantize":
        return True
    if kind == "Constant":
        return node.get_element_type().get_type_name() in _EIGHT_BITS
    if kind in _SEE_THROUGH or kind == "Subtract":
        return _is_rounded(node.input_value(0).get_node())
    return False


def kinds(compiled: ov.CompiledModel, profile: Iterable[Any], gflop: Mapping[str, float]) -> list[Kind]:
    """Return what a profiled call spent by kind of node and kernel, the longest first."""
    nodes = {node.get_friendly_name(): node.get_rt_info() for node in compiled.get_runtime_model().get_ops()}
    sums: dict[tuple[str, str], list[float]] = {}
    for entry in profile:
        if entry.status != ov.ProfilingInfo.Status.EXECUTED:
            continue
        total = sums.setdefault((entry.node_type, entry.exec_type), [0, 0.0, 0.0])
        total[0] += 1
        total[1] += entry.real_time.total_seconds() * 1e3
        total[2] += sum(gflop.get(name, 0.0) for name in _originals(nodes.get(entry.node_name, {})))
    found = [Kind(kind, kernel, int(n), ms, work) for (kind, kernel), (n, ms, work) in sums.items()]
    return sorted(found, key=lambda kind: -kind.ms)


def int8_share(compiled: ov.CompiledModel, gflop: Mapping[str, float], in_graph: set[str]) -> float:
    """Return the share of a model's GFLOP that is multiplied in int8, 0 to 1: rounded in the graph and by the runtime.

    A fused attention is one node, int8 by its own account, whose second product is not.
    """
    done = 0.0
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if "runtimePrecision" in info and str(info["runtimePrecision"].value).lower() in _EIGHT_BITS:
            done += sum(gflop.get(name, 0.0) for name in _originals(info) if name in in_graph)
    return done / sum(gflop.values())


def _originals(info: Mapping[str, Any]) -> list[str]:
    """Return the nodes that a multiplying one of the runtime's stands for; int8 layers may be called X_original."""
    if "originalLayersNames" not in info or str(info["layerType"].value) not in _MULTIPLYING:
        return []
    return [name.removesuffix("_original") for name in str(info["originalLayersNames"].value).split(",")]
