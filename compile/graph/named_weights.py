"""Takes a module's weights out of its exported graph, and puts another's of the same architecture in, by name.

torch.onnx names initialisers as the module's state dict does, as long as no optimiser has folded any. A graph without
weights has them as inputs behind its own.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from mezzotint.compile.graph.nodes import drop_unused_weights
from mezzotint.engines.errors import CompileError


def take_out(model: ir.Model, names: Collection[str]) -> list[str]:
    """Make the initialisers that are named in ``names`` inputs, and drop all that nothing uses; returns their names."""
    drop_unused_weights(model)
    taken = [value for name, value in model.graph.initializers.items() if name in names]
    for value in taken:
        del model.graph.initializers[str(value.name)]
        value.const_value = None
        model.graph.inputs.append(value)
    return [str(value.name) for value in taken]


def put_in(model: ir.Model, weights: Mapping[str, npt.NDArray[Any]]) -> None:
    """Make the inputs that are named in ``weights`` initialisers with these values.

    Raises:
        CompileError: a weight is no input of the graph, or one of another shape or type.
    """
    inputs = {str(value.name): value for value in model.graph.inputs}
    for name, array in weights.items():
        value, tensor = inputs.get(name), ir.tensor(array, name=name)
        wanted = None if value is None or value.shape is None else (tuple(value.shape), value.dtype)
        if value is None or wanted != (array.shape, tensor.dtype):
            raise CompileError(
                f"{name}: is {array.shape} of {tensor.dtype}, expected {wanted} as the exported graph has it; remove "
                "this export from the compiler's cache"
            )
        model.graph.inputs.remove(value)
        value.const_value = tensor
        model.graph.register_initializer(value)
