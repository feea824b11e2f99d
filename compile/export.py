"""The checkpoint's modules as ONNX: one float32 export each, through torch.onnx, with every axis dynamic that varies.

Every backend and precision derives from it, so nothing of a backend, size or precision is decided here. It is made in
two stages: a graph without weights, once for all checkpoints of an architecture, and a checkpoint's own weights in it.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import optimizer

from mezzotint.compile import torch_modules
from mezzotint.compile.architecture import layout, stated, weights_digest
from mezzotint.compile.checkpoint import Checkpoint, text_settings
from mezzotint.compile.graph import named_weights, nodes
from mezzotint.compile.stages import Stages, code_digest, exporter_versions
from mezzotint.compile.torch_modules import Decoder, Denoiser, Encoder, FillingDenoiser, TextStates
from mezzotint.engines.canvas import MASK, MASKED
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CompileError
from mezzotint.engines.guidance import GUIDANCE
from mezzotint.engines.manifest import TensorSpec

ONNX_FILE = "model.onnx"
COMPONENTS = (Component.TEXT_ENCODER, Component.UNET, Component.VAE_DECODER, Component.VAE_ENCODER)
"""What every checkpoint has."""

_EXTERNAL_BYTES = 1 << 30  # protobuf ends at 2 GiB; weights of large models lie beside the graph
# Two of every varying axis, each another number: torch.export takes equal lengths for one axis, and 1 for a constant.
_ROWS, _HEIGHT, _WIDTH = 2, 3, 5


def tensor_spec(name: str, role: str, *axes: int | str) -> TensorSpec:
    """Return what the manifest says of a float32 input or output."""
    return TensorSpec(name=name, role=role, dtype="float32", axes=axes)


_PIXELS = tensor_spec("pixels", "image", "rows", 3, "pixel_height", "pixel_width")


@dataclass(frozen=True, slots=True)
class Part:
    """One component before compilation: the torch module, a call of it, and what the manifest says of its tensors.

    ``settings`` are what beside code, tensors and the shapes of weights decides the module's graph, as JSON.
    """

    module: torch.nn.Module
    example: tuple[torch.Tensor, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    settings: Mapping[str, Any]


def latent_factor(checkpoint: Checkpoint) -> int:
    """Return how many pixels a latent pixel is wide: the VAE halves once between its levels."""
    return int(2 ** (len(checkpoint.vae.config.block_out_channels) - 1))


def latent_multiple(checkpoint: Checkpoint) -> int:
    """Return what latent height and width must be multiples of: the UNet halves once between its levels."""
    return int(2 ** (len(checkpoint.unet.config.block_out_channels) - 1))


def part(checkpoint: Checkpoint, component: Component) -> Part:
    """Return one component of a checkpoint, ready to be exported or to be compared with."""
    makers = {
        Component.TEXT_ENCODER: _text_encoder,
        Component.UNET: _unet,
        Component.VAE_DECODER: _vae_decoder,
        Component.VAE_ENCODER: _vae_encoder,
    }
    if component not in makers:
        raise ValueError(f"{component} is no part of every checkpoint; a file of its own exports it")
    return makers[component](checkpoint)


def _text_encoder(checkpoint: Checkpoint) -> Part:
    encoder, tokens = checkpoint.text_encoder, checkpoint.max_tokens
    width = int(encoder.config.hidden_size)
    skips = min(2, int(encoder.config.num_hidden_layers) - 1)
    embeddings = tensor_spec("embeddings", "embeddings", "rows", tokens, width)
    states = tensor_spec("states", "text", "rows", 1 + skips, tokens, width)
    example = (torch.randn(_ROWS, tokens, width),)
    return Part(TextStates(encoder, skips), example, (embeddings,), (states,), text_settings(encoder))


def _unet(checkpoint: Checkpoint) -> Part:
    unet, width = checkpoint.unet, int(checkpoint.text_encoder.config.hidden_size)
    latents = _latents(checkpoint)
    sample = tensor_spec("sample", "latents", "rows", latents.shape[1], "height", "width")
    text = tensor_spec("text", "text", "rows", "tokens", width)
    inputs: tuple[TensorSpec, ...] = (sample, tensor_spec("timestep", "timestep", "rows"), text)
    example: tuple[torch.Tensor, ...]
    example = (latents, torch.tensor([1.0, 2.0]), torch.randn(_ROWS, checkpoint.max_tokens, width))
    if checkpoint.fills_in:
        mask = tensor_spec(MASK, MASK, "rows", 1, "height", "width")
        inputs += (mask, sample.model_copy(update={"name": MASKED, "role": MASKED}))
        example += (torch.rand(_ROWS, 1, *latents.shape[2:]), torch.randn(latents.shape))
    if guidance_width := unet.config.get("time_cond_proj_dim"):
        inputs += (tensor_spec(GUIDANCE, GUIDANCE, "rows", guidance_width),)
        example += (torch.randn(_ROWS, guidance_width),)
    output = sample.model_copy(update={"name": "output", "role": "output"})
    denoiser = (FillingDenoiser if checkpoint.fills_in else Denoiser)(unet)
    return Part(denoiser, example, inputs, (output,), stated(unet))


def _vae_decoder(checkpoint: Checkpoint) -> Part:
    example = _latents(checkpoint)
    latents = tensor_spec("latents", "latents", "rows", example.shape[1], "height", "width")
    return Part(Decoder(checkpoint.vae), (example,), (latents,), (_PIXELS,), stated(checkpoint.vae))


def _vae_encoder(checkpoint: Checkpoint) -> Part:
    _, channels, height, width = _latents(checkpoint).shape
    factor = latent_factor(checkpoint)
    moments = tensor_spec("moments", "moments", "rows", 2 * channels, "height", "width")
    image = torch.randn(_ROWS, 3, height * factor, width * factor)
    return Part(Encoder(checkpoint.vae), (image,), (_PIXELS,), (moments,), stated(checkpoint.vae))


def _latents(checkpoint: Checkpoint) -> torch.Tensor:
    """Return an example of latents, float32 [rows, C, height, width]."""
    multiple = latent_multiple(checkpoint)
    return torch.randn(_ROWS, int(checkpoint.vae.config.latent_channels), _HEIGHT * multiple, _WIDTH * multiple)


def exported(stages: Stages, name: str, the_part: Part) -> Path:
    """Run the export of a part as two stages, graph and weights; returns the folder of the whole.

    A graph is reused for other weights only where settings, code, versions and the names and shapes of all weights are
    the same; what differs in any is exported anew.
    """
    code = code_digest(sys.modules[__name__], torch_modules, named_weights, nodes)
    inputs = {
        "settings": the_part.settings,
        "layout": layout(the_part.module),
        "tensors": [spec.model_dump() for spec in (*the_part.inputs, *the_part.outputs)],
        "code": code,
        "versions": exporter_versions(),
    }
    graph = stages.run(f"export {name}", inputs, lambda folder: export_graph(the_part, folder / ONNX_FILE))
    state = the_part.module.state_dict()
    weights = {key: state[key] for key in graph.detail}
    inputs = {"graph": graph.folder.name, "weights": weights_digest(weights), "code": code}

    def work(folder: Path) -> None:
        fill(graph.folder / ONNX_FILE, weights, folder / ONNX_FILE)

    return stages.run(f"weights {name}", inputs, work).folder


def export_graph(the_part: Part, target: Path) -> list[str]:
    """Write the graph of a part without its weights; returns the names of those.

    They are taken out before the exporter's optimiser runs, so that it can fold and merge nothing of them.

    Raises:
        CompileError: torch.onnx cannot export it.
    """
    dynamic = tuple(
        {i: torch.export.Dim.AUTO for i, axis in enumerate(tensor.axes) if isinstance(axis, str)}
        for tensor in the_part.inputs
    )
    try:
        program = _quietly(
            lambda: torch.onnx.export(
                the_part.module.eval(),
                the_part.example,
                dynamo=True,
                dynamic_shapes=dynamic,
                input_names=[tensor.name for tensor in the_part.inputs],
                output_names=[tensor.name for tensor in the_part.outputs],
                optimize=False,
                verbose=False,
            )
        )
    except OSError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CompileError(f"torch.onnx cannot export {type(the_part.module).__name__}: {reason}") from error
    names = named_weights.take_out(program.model, the_part.module.state_dict())
    _quietly(program.optimize)
    ir.save(program.model, target)
    return names


def fill(graph: Path, weights: Mapping[str, torch.Tensor], target: Path) -> None:
    """Write the model of an exported graph and weights by name, those of large models beside it.

    What the optimiser could not do without them is done here: transposed weights are folded.

    Raises:
        CompileError: the weights are not those that the graph lacks.
    """
    model = ir.load(graph)
    named_weights.put_in(model, {name: value.detach().contiguous().numpy() for name, value in weights.items()})
    optimizer.fold_constants(model)
    nodes.drop_unused_weights(model)
    num_bytes = sum(value.nbytes for value in weights.values())
    ir.save(model, target, external_data=f"{target.name}.data" if num_bytes > _EXTERNAL_BYTES else None)


def _quietly(call: Callable[[], Any]) -> Any:
    """Run ``call`` without the exporter's talk of torchvision and deprecations inside itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return call()
    finally:
        logger.setLevel(level)
