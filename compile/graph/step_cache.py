"""DeepCache: a UNet call that starts from a hidden state of an earlier one (Ma et al. 2023, arXiv 2312.00858).

Branch b caches the hidden state that meets the skip connection in layer (last − b) of the last up block. All that lies
deeper is left out of a shallow call; what stays is computed from the sample, the timestep, the text and that state.
"""

from typing import Any

import onnx_ir as ir

from mezzotint.compile.graph.cut import cut
from mezzotint.compile.graph.modules import num_channels, output_of
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.manifest import TensorSpec

FEATURE = "feature"


def feature_module(unet: Any, branch: int) -> str:
    """Return the path, inside a diffusers UNet, of the module whose output a branch caches.

    Raises:
        InvalidRequest: the UNet has no such branch.
    """
    last = unet.up_blocks[-1]
    num_layers = len(last.resnets)
    if not 0 <= branch < num_layers:
        raise InvalidRequest(
            f"step_cache={branch}: must be a branch of this UNet's last up block, 0 to {num_layers - 1}"
        )
    before = num_layers - 2 - branch
    if before >= 0:
        kind = "attentions" if getattr(last, "attentions", None) else "resnets"
        return f"up_blocks.{len(unet.up_blocks) - 1}.{kind}.{before}"
    return f"up_blocks.{len(unet.up_blocks) - 2}" if len(unet.up_blocks) > 1 else "mid_block"


def split(model: ir.Model, module: str) -> tuple[ir.Model, ir.Model, TensorSpec]:
    """Return the UNet that gives the output of ``module`` too, the one that takes it as an input, and its spec.

    Raises:
        CompileError: the graph has no such module, or its output has no fixed number of channels.
    """
    value = output_of(model, f"unet.{module}")
    feature = {str(value.name): FEATURE}
    inputs, outputs = ({str(v.name): str(v.name) for v in side} for side in (model.graph.inputs, model.graph.outputs))
    # the last up block works at the latents' own size
    spec = TensorSpec(
        name=FEATURE, role=FEATURE, dtype="float32", axes=("rows", num_channels(value), "height", "width")
    )
    return cut(model, inputs, outputs | feature), cut(model, inputs | feature, outputs), spec
