"""Writes the trained model as a diffusers folder, which diffusers and ``mezzotint compile`` read.

What training leaves alone (VAE, tokenizer, scheduler) is written as it came with the base. A folder is there whole or
not at all.
"""

import copy
from pathlib import Path
from typing import Any

import diffusers
import torch

from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import TrainError
from mezzotint.engines.folders import whole_folder
from mezzotint.engines.model_index import BASE_DIGEST
from mezzotint.trainer.base import Base
from mezzotint.trainer.model_card import FILE, ModelCard


def save_model(model: Base, folder: Path, card: ModelCard, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a diffusers folder with weights of ``dtype`` and its card; ``model`` is the base with trained modules.

    Raises TrainError if a weight is too large for ``dtype``.
    """
    pipeline = diffusers.StableDiffusionPipeline(
        vae=as_dtype(model.vae, dtype),
        text_encoder=as_dtype(model.text_encoder, dtype),
        tokenizer=model.tokenizer,
        unet=as_dtype(model.unet, dtype),
        scheduler=model.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.register_to_config(**{BASE_DIGEST: model.digest})
    with whole_folder(folder) as unfinished:
        pipeline.save_pretrained(unfinished)
        weights = sorted(unfinished.rglob("*.safetensors"))
        digests = {str(path.relative_to(unfinished)): file_digest(path) for path in weights}
        page = card.text(digests, str(dtype).removeprefix("torch."))
        (unfinished / FILE).write_text(page, encoding="utf-8")


def as_dtype(module: Any, dtype: torch.dtype) -> Any:
    """Return the module itself if it is of ``dtype``, otherwise a copy; raises TrainError for what it cannot hold."""
    if all(value.dtype == dtype for value in module.parameters()):
        return module
    for name, value in module.state_dict().items():
        to_dtype(name, value, dtype)
    return copy.deepcopy(module).to(dtype)


def to_dtype(name: str, value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return ``value`` as ``dtype``; raises TrainError where that makes an infinity of a number."""
    converted = value.to(dtype)
    if not bool(torch.isfinite(converted).all()):
        largest = value.abs().max().item()
        raise TrainError(
            f"{name}: its largest weight is {largest:g}, which {str(dtype).removeprefix('torch.')} cannot hold "
            f"(expected at most {torch.finfo(dtype).max:g}); save it as float32, and train with a lower learning rate"
        )
    return converted
