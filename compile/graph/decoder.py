"""A VAE decoder as engines that are called in a row, so that none of them holds the device for long.

It is cut after its mid block and after each up block, wherever one tensor is all that the rest needs.
"""

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from mezzotint.compile.graph.cut import cut
from mezzotint.compile.graph.modules import num_channels, output_of
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import TensorSpec

HIDDEN = "hidden"
TIMES = "_x"  # between the name of a side and how many times longer than the latents' it is
_PROBE = 64  # latent rows and columns at which the size of a hidden tensor is compared with the latents'


def block_modules(vae: Any) -> tuple[str, ...]:
    """Return the paths of the modules of an exported decoder after which it may be cut."""
    blocks = ["mid_block", *(f"up_blocks.{i}" for i in range(len(vae.decoder.up_blocks)))]
    return tuple(f"vae.decoder.{block}" for block in blocks)


class Sections:
    """A decoder's shortest sections: ``len(sections)`` of them follow each other.

    Args:
        model: the decoder, with one input and one output.
        modules: the paths of the modules after which it may be cut.
    """

    def __init__(self, model: ir.Model, modules: Sequence[str]) -> None:
        self._model = model
        (given,), (made,) = model.graph.inputs, model.graph.outputs
        between = [value for value in (output_of(model, module) for module in modules) if _is_passage(model, value)]
        self._values = [given, *between, made]

    def __len__(self) -> int:
        return len(self._values) - 1

    def part(self, first: int, end: int) -> tuple[ir.Model, TensorSpec | None, TensorSpec | None]:
        """Return sections ``first`` to ``end`` (exclusive) as one model, with its hidden input and output if it has."""
        inputs, outputs = ({str(self._values[i].name): self._name(i)} for i in (first, end))
        return cut(self._model, inputs, outputs), self._spec(first), self._spec(end)

    def _name(self, i: int) -> str:
        return f"{HIDDEN}{i}" if 0 < i < len(self) else str(self._values[i].name)

    def _spec(self, i: int) -> TensorSpec | None:
        if not 0 < i < len(self):
            return None
        value = self._values[i]
        scale = scale_of(self._model, value)
        sides = (side if scale == 1 else f"{side}{TIMES}{scale}" for side in ("height", "width"))
        return TensorSpec(name=self._name(i), role=HIDDEN, dtype="float32", axes=("rows", num_channels(value), *sides))


def _is_passage(model: ir.Model, value: ir.Value) -> bool:
    """Whether all that comes after ``value`` needs nothing else of what comes before it."""
    try:
        cut(model, {str(value.name): HIDDEN}, {str(v.name): str(v.name) for v in model.graph.outputs})
    except CompileError:
        return False
    return True


def scale_of(model: ir.Model, value: ir.Value) -> int:
    """Return how many times larger than the latents a tensor is along each side. Raises CompileError."""
    shapes = (model.graph.inputs[0].shape, value.shape)
    named = [axis for axis in shapes[0] or () if isinstance(axis, ir.SymbolicDim)]
    lengths = {str(axis.value): _PROBE for axis in named}
    before, found = ([] if shape is None else list(shape.evaluate(lengths)[2:]) for shape in shapes)
    scales = {
        new / old for old, new in zip(before, found, strict=True) if isinstance(old, int) and isinstance(new, int)
    }
    if len(scales) != 1 or not (scale := scales.pop()).is_integer():
        raise CompileError(f"{value.name}: its size {value.shape} is no multiple of the latents'")
    return int(scale)
