"""Reading and making nodes and weights of a graph, for what rewrites one."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir


def nodes_of(model: ir.Model, op_type: str) -> list[ir.Node]:
    """Return the graph's nodes of one type, in its order; the graph may be changed while one goes through them."""
    return [node for node in model.graph if node.op_type == op_type]


def producer(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """Return the node that makes ``value``, if it is of that type."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == op_type else None


def only_user(node: ir.Node, op_type: str) -> ir.Node | None:
    """Return the node that alone takes the first output of ``node``, if it is of that type."""
    output = node.outputs[0]
    users = [] if output.is_graph_output() else output.consumers()
    return users[0] if len(users) == 1 and users[0].op_type == op_type else None


def is_weight(value: ir.Value | None) -> bool:
    """Return whether a value is a weight that can be read."""
    return value is not None and value.is_initializer() and value.const_value is not None


def array_of(value: ir.Value | None) -> npt.NDArray[Any]:
    """Return a weight. Raises ValueError where it is none."""
    if value is None or value.const_value is None:
        raise ValueError(f"{value} is no weight")
    return value.const_value.numpy()


def new_weight(model: ir.Model, name: str, array: npt.NDArray[Any]) -> ir.Value:
    """Add a weight to the model."""
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def new_node(
    op_type: str,
    inputs: Iterable[ir.Value | None],
    origin: ir.Node,
    name: str,
    *,
    like: ir.Value | None = None,
    **attributes: Any,
) -> ir.Node:
    """Return a node of one output that counts as part of ``origin``'s torch module."""
    node = ir.node(op_type, list(inputs), attributes=attributes)
    node.metadata_props.update(origin.metadata_props)
    node.outputs[0].name = name
    if like is not None:
        node.outputs[0].shape, node.outputs[0].type = like.shape, like.type
    return node


def drop_unused_weights(model: ir.Model) -> None:
    """Forget the weights that no node takes any more."""
    weights = model.graph.initializers
    for name in [name for name, value in weights.items() if not value.consumers() and not value.is_graph_output()]:
        del weights[name]
