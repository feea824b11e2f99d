"""A second, much smaller decoder: diffusers' AutoencoderTiny, for pictures that may lose detail (TAESD)."""

import sys
from pathlib import Path

import diffusers
import torch

from mezzotint.compile.architecture import stated
from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.compile.diffusers_folder import load_module, read_json
from mezzotint.compile.export import Part, latent_factor, part
from mezzotint.compile.reference import Arrays
from mezzotint.compile.stages import code_digest
from mezzotint.engines.component import Component
from mezzotint.engines.errors import CheckpointError

NAME = "vae_decoder_tiny"
_CLASS = "AutoencoderTiny"


class TinyDecoder(torch.nn.Module):
    """AutoencoderTiny's decoder for the latents that the checkpoint's own takes: sampled / scaling + shift."""

    def __init__(self, tiny: diffusers.AutoencoderTiny, scaling: float, shift: float) -> None:
        super().__init__()
        self.decoder = tiny.decoder
        self.scale = scaling / tiny.config.scaling_factor
        self.shift = shift
        self.own_shift = tiny.config.get("shift_factor") or 0.0

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return pixels in −1…1, float32 [rows, 3, H, W]."""
        pixels: torch.Tensor = self.decoder((latents - self.shift) * self.scale + self.own_shift)
        return pixels


def load_tiny(folder: Path, checkpoint: Checkpoint) -> diffusers.AutoencoderTiny:
    """Load an AutoencoderTiny for a checkpoint's latents. Raises CheckpointError."""
    found = read_json(folder / "config.json").get("_class_name")
    if found != _CLASS:
        raise CheckpointError(f"{folder}: its config.json is of {found}, expected {_CLASS}; give a folder of one")
    tiny = load_module(diffusers.AutoencoderTiny, "tiny decoder", folder, "diffusion_pytorch_model")
    config = tiny.config
    factor = config.upsampling_scaling_factor ** (len(config.decoder_block_out_channels) - 1)
    own = (config.latent_channels, factor, config.out_channels)
    wanted = (checkpoint.vae.config.latent_channels, latent_factor(checkpoint), 3)
    if own != wanted:
        raise CheckpointError(
            f"{folder}: decodes {own[0]} channels to {own[2]} at {own[1]} times the size, expected {wanted[0]} to "
            f"{wanted[2]} at {wanted[1]} times as {checkpoint.name} needs; give a tiny decoder of this model's latents"
        )
    return tiny


def tiny_part(tiny: diffusers.AutoencoderTiny, checkpoint: Checkpoint) -> Part:
    """Return the decoder, ready to be exported, with the inputs and outputs of the checkpoint's own."""
    own = part(checkpoint, Component.VAE_DECODER)
    scaling, shift = checkpoint.vae.config.scaling_factor, checkpoint.vae.config.shift_factor or 0.0
    settings = {"tiny": stated(tiny), "latents": [scaling, shift], "code": code_digest(sys.modules[__name__])}
    return Part(TinyDecoder(tiny, scaling, shift), own.example, own.inputs, own.outputs, settings)


def record_tiny(tiny: diffusers.AutoencoderTiny, recorded: Arrays) -> Arrays:
    """Return what diffusers' decoder makes of the recorded samples, under its own name."""
    samples = torch.from_numpy(recorded["latents"])
    config = tiny.config
    with torch.no_grad():
        pixels = tiny.decode(samples / config.scaling_factor + (config.get("shift_factor") or 0.0)).sample
    return {f"{NAME}/latents": recorded["vae_decoder/latents"], f"{NAME}/pixels": pixels.numpy()}
