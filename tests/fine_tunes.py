"""Fine-tunes of a diffusers folder without training: other weights in UNet and text encoder, all else byte for byte."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

Change = Callable[[str, torch.Tensor], torch.Tensor]


def write_fine_tune(base: Path, target: Path, change: Change | None = None) -> Path:
    """Write a folder whose weights are noise of 3 % away from the base's, or changed as told; returns it."""
    shutil.copytree(base, target)
    for folder in ("unet", "text_encoder"):
        for file in sorted((target / folder).glob("*.safetensors")):
            weights = {name: (change or disturbed)(name, value.float()) for name, value in load_file(file).items()}
            save_file(weights, file, metadata={"format": "pt"})
    return target


def disturbed(name: str, weight: torch.Tensor) -> torch.Tensor:
    """Return a weight with noise of 3 % of its own spread, the same each time."""
    generator = torch.Generator().manual_seed(len(name))
    return weight + 0.03 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
