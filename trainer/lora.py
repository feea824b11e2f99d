"""LoRA in training: low-rank matrices beside frozen layers, and their files in diffusers' and kohya's layouts.

Layers, start and files are those of diffusers' ``train_dreambooth_lora.py``; PEFT does the arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from safetensors.torch import save_file

from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import TrainError
from mezzotint.engines.folders import whole_file
from mezzotint.trainer.model_card import FILE, ModelCard

UNET_LAYERS = ("to_k", "to_q", "to_v", "to_out.0")
TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
DIFFUSERS_FILE = LORA_WEIGHT_NAME_SAFE
KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"

_ADAPTER = "default"


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """How a LoRA is made: its change of a weight is ``alpha`` / ``rank`` times the product of its two matrices.

    ``layers`` are the ends of the names of the UNet's layers that get matrices, ``text_layers`` of the text encoder's.
    """

    rank: int = 4
    alpha: float = 4.0
    dropout: float = 0.0
    layers: Sequence[str] = UNET_LAYERS
    text_layers: Sequence[str] = TEXT_LAYERS


def add_lora(unet: Any, text_encoder: Any | None, settings: LoraSettings, *, seed: int) -> None:
    """Freeze the modules and put matrices to train beside their layers: those of ``seed``, which do nothing yet.

    ``text_encoder`` is None where it is not trained. Raises TrainError where no layer has such a name.
    """
    # The first matrix is random; where that comes from is not to depend on what was drawn before.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _add(unet, "unet", settings, settings.layers)
        if text_encoder is not None:
            _add(text_encoder, "text_encoder", settings, settings.text_layers)


def _add(module: Any, component: str, settings: LoraSettings, layers: Sequence[str]) -> None:
    module.requires_grad_(False)
    config = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        init_lora_weights="gaussian",
        target_modules=list(layers),
    )
    try:
        module.add_adapter(config)
    except ValueError as error:
        raise TrainError(
            f"LoRA's layers {', '.join(layers)}: do not fit the {component} ({str(error).splitlines()[0]}); name "
            f"the ends of names of linear layers or convolutions, such as {', '.join((*UNET_LAYERS, *TEXT_LAYERS))}"
        ) from error


def save_lora(modules: Mapping[str, Any], folder: Path, card: ModelCard) -> tuple[Path, Path]:
    """Write the matrices of ``modules`` (``unet`` and perhaps ``text_encoder``) and their card into ``folder``.

    Returns diffusers' file, which PEFT's settings go with, and kohya's, which A1111 and ComfyUI read; each is there
    whole or not at all.
    """
    parts = {component: _matrices(component, module) for component, module in modules.items()}
    configs = {component: module.peft_config[_ADAPTER] for component, module in modules.items()}
    with whole_file(folder / DIFFUSERS_FILE) as unfinished:
        diffusers.StableDiffusionPipeline.save_lora_weights(
            unfinished.parent,
            weight_name=unfinished.name,
            **{f"{component}_lora_layers": part for component, part in parts.items()},
            **{f"{component}_lora_adapter_metadata": config.to_dict() for component, config in configs.items()},
        )
    settings = configs["unet"]
    with whole_file(folder / KOHYA_FILE) as unfinished:
        save_file(
            _kohya(parts, settings.lora_alpha),
            unfinished,
            {
                "format": "pt",
                "ss_network_module": "networks.lora",
                "ss_network_dim": str(settings.r),
                "ss_network_alpha": str(settings.lora_alpha),
            },
        )
    files = (folder / DIFFUSERS_FILE, folder / KOHYA_FILE)
    with whole_file(folder / FILE) as unfinished:
        unfinished.write_text(card.text({file.name: file_digest(file) for file in files}), encoding="utf-8")
    return files


def _matrices(component: str, module: Any) -> dict[str, torch.Tensor]:
    """Return a module's matrices under PEFT's names, a text encoder's as all versions of transformers find them."""
    state = peft.get_peft_model_state_dict(module, adapter_name=_ADAPTER)
    inner = "text_model." if component == "text_encoder" else ""
    return {f"{inner}{key.removeprefix(inner)}": value.detach().float().cpu() for key, value in state.items()}


def _kohya(parts: Mapping[str, Mapping[str, torch.Tensor]], alpha: float) -> dict[str, torch.Tensor]:
    """Return the matrices under kohya's names for Stable Diffusion 1.x and 2.x.

    diffusers' converter names text encoders as Stable Diffusion XL's, and takes the rank for alpha.
    """
    state = {f"{component}.{key}": value for component, part in parts.items() for key, value in part.items()}
    named = convert_state_dict_to_kohya(state)
    return {
        key.replace("lora_te1_", "lora_te_", 1): torch.tensor(alpha) if key.endswith(".alpha") else value.contiguous()
        for key, value in named.items()
    }
