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
import transformers
from onnxscript import optimizer

from mezzotint.compile.architecture import layout, stated, weights_digest
from mezzotint.compile.checkpoint import Checkpoint, text_settings
from mezzotint.compile.graph import named_weights, nodes
from mezzotint.compile.stages import Stages, code_digest, exporter_versions
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


class TextStates(torch.nn.Module):
    """CLIP's text encoder from token embeddings on, as transformers computes it from ids.

    Takes float32 [rows, tokens, width] and gives float32 [rows, 1 + num_skips, tokens, width]: the states of the last
    layer, and of those before it which clip skip asks for, each after the final layer norm, as diffusers uses them.
    """

    def __init__(self, encoder: transformers.CLIPTextModel, num_skips: int) -> None:
        super().__init__()
        inner = getattr(encoder, "text_model", encoder)  # transformers 5 has one module less
        self.positions = inner.embeddings.position_embedding
        self.layers = inner.encoder.layers
        self.norm = inner.final_layer_norm
        self.num_skips = num_skips

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Run the encoder with CLIP's causal mask."""
        tokens = embeddings.shape[1]
        states = embeddings + self.positions.weight[:tokens]
        mask = torch.full((tokens, tokens), torch.finfo(torch.float32).min).triu(1)[None, None]
        kept = [states]
        for layer in self.layers:
            out = layer(states, attention_mask=mask)
            states = out[0] if isinstance(out, tuple) else out
            kept.append(states)
        return torch.stack([self.norm(s) for s in reversed(kept[-1 - self.num_skips :])], dim=1)


class Denoiser(torch.nn.Module):
    """The UNet with a float32 timestep for each row, and with guidance where the model was distilled with it."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor, guidance: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the model output, float32 [rows, C, height, width]."""
        found = self.unet(sample, timestep, text, timestep_cond=guidance, return_dict=False)
        return found[0]  # type: ignore[no-any-return]


class FillingDenoiser(Denoiser):
    """The UNet of a model that was trained to inpaint: its own input channels as three inputs."""

    def forward(  # type: ignore[override]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        mask: torch.Tensor,
        masked_latents: torch.Tensor,
        guidance: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the model output, float32 [rows, C, height, width]; ``mask`` is 1 where the picture is drawn anew."""
        return super().forward(torch.cat([sample, mask, masked_latents], dim=1), timestep, text, guidance)


class Decoder(torch.nn.Module):
    """The VAE's way from latents (divided by the scaling factor) to pixels in −1…1."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return float32 [rows, 3, H, W]."""
        return self.vae.decode(latents, return_dict=False)[0]  # type: ignore[operator,no-any-return]


class Encoder(torch.nn.Module):
    """The VAE's way from pixels in −1…1 to the mean and log variance of latents."""

    def __init__(self, vae: torch.nn.Module) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 [rows, 2C, height, width]."""
        moments: torch.Tensor = self.vae.encoder(pixels)  # type: ignore[operator]
        if self.vae.quant_conv is not None:
            moments = self.vae.quant_conv(moments)  # type: ignore[operator]
        return moments


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
    factor, multiple = latent_factor(checkpoint), latent_multiple(checkpoint)
    channels = int(checkpoint.vae.config.latent_channels)
    height, width = _HEIGHT * multiple, _WIDTH * multiple
    latent = (_ROWS, channels, height, width)
    text_width = int(checkpoint.text_encoder.config.hidden_size)
    text = (_ROWS, checkpoint.max_tokens, text_width)
    match component:
        case Component.TEXT_ENCODER:
            skips = min(2, int(checkpoint.text_encoder.config.num_hidden_layers) - 1)
            module: torch.nn.Module = TextStates(checkpoint.text_encoder, skips)
            states = tensor_spec("states", "text", "rows", 1 + skips, checkpoint.max_tokens, text_width)
            return Part(
                module,
                (torch.randn(text),),
                (tensor_spec("embeddings", "embeddings", "rows", checkpoint.max_tokens, text_width),),
                (states,),
                text_settings(checkpoint.text_encoder),
            )
        case Component.UNET:
            sample = tensor_spec("sample", "latents", "rows", channels, "height", "width")
            inputs: tuple[TensorSpec, ...] = (
                sample,
                tensor_spec("timestep", "timestep", "rows"),
                tensor_spec("text", "text", "rows", "tokens", text_width),
            )
            example: tuple[torch.Tensor, ...]
            example = (torch.randn(latent), torch.tensor([1.0, 2.0]), torch.randn(text))
            output = sample.model_copy(update={"name": "output", "role": "output"})
            if checkpoint.fills_in:
                mask = tensor_spec(MASK, MASK, "rows", 1, "height", "width")
                inputs += (mask, sample.model_copy(update={"name": MASKED, "role": MASKED}))
                example += (torch.rand(_ROWS, 1, height, width), torch.randn(latent))
            if guidance_width := checkpoint.unet.config.get("time_cond_proj_dim"):
                inputs += (tensor_spec(GUIDANCE, GUIDANCE, "rows", guidance_width),)
                example += (torch.randn(_ROWS, guidance_width),)
            denoiser = (FillingDenoiser if checkpoint.fills_in else Denoiser)(checkpoint.unet)
            return Part(denoiser, example, inputs, (output,), stated(checkpoint.unet))
        case Component.VAE_DECODER:
            pixels = tensor_spec("pixels", "image", "rows", 3, "pixel_height", "pixel_width")
            latents = tensor_spec("latents", "latents", "rows", channels, "height", "width")
            latents_only = (torch.randn(latent),)
            return Part(Decoder(checkpoint.vae), latents_only, (latents,), (pixels,), stated(checkpoint.vae))
        case Component.VAE_ENCODER:
            pixels = tensor_spec("pixels", "image", "rows", 3, "pixel_height", "pixel_width")
            moments = tensor_spec("moments", "moments", "rows", 2 * channels, "height", "width")
            image = (torch.randn(_ROWS, 3, height * factor, width * factor),)
            return Part(Encoder(checkpoint.vae), image, (pixels,), (moments,), stated(checkpoint.vae))
        case _:
            raise ValueError(f"{component} is no part of every checkpoint; a file of its own exports it")


def exported(stages: Stages, name: str, the_part: Part) -> Path:
    """Run the export of a part as two stages, graph and weights; returns the folder of the whole.

    A graph is reused for other weights only where settings, code, versions and the names and shapes of all weights are
    the same; what differs in any is exported anew.
    """
    code = code_digest(sys.modules[__name__], named_weights, nodes)
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


def tensor_spec(name: str, role: str, *axes: int | str) -> TensorSpec:
    """Return what the manifest says of a float32 input or output."""
    return TensorSpec(name=name, role=role, dtype="float32", axes=axes)


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
