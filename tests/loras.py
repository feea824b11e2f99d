"""Writes LoRA files with random matrices in every layout that is read, for the models of tests."""

from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from diffusers.training_utils import _collate_lora_metadata
from safetensors.torch import save_file

from mezzotint.compile.checkpoint import load_checkpoint

State = dict[str, torch.Tensor]

RANK, ALPHA = 3, 1.5
UNET_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "out_proj"]
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"


class Lora:
    """The same LoRA for whatever layout it is written in; its layers are those that diffusers trains, or ``layers``.

    Attributes:
        parts: the matrices by component, under PEFT's names.
    """

    def __init__(self, folder: Path, *, text: bool = True, layers: list[str] = UNET_LAYERS, size: float = 0.3) -> None:
        torch.manual_seed(4)
        pipeline = load_checkpoint(folder).pipeline()
        self._modules: dict[str, Any] = {"unet": pipeline.unet}
        pipeline.unet.add_adapter(_config(layers))
        if text:
            pipeline.text_encoder.add_adapter(_config(TEXT_LAYERS))
            self._modules["text_encoder"] = pipeline.text_encoder
        for module in self._modules.values():
            for name, value in module.named_parameters():
                if ".lora_" in name:
                    torch.nn.init.normal_(value, std=size)
        self.parts: dict[str, State] = {
            component: {key: value.clone() for key, value in peft.get_peft_model_state_dict(module).items()}
            for component, module in self._modules.items()
        }

    def as_diffusers(self, folder: Path) -> Path:
        """Write what diffusers' training scripts write; returns the file."""
        diffusers.StableDiffusionPipeline.save_lora_weights(
            folder,
            unet_lora_layers=self.parts["unet"],
            text_encoder_lora_layers=self.parts.get("text_encoder"),
            **_collate_lora_metadata(self._modules),
        )
        return folder / DIFFUSERS_FILE

    def as_old_diffusers(self, file: Path) -> Path:
        """Write what its scripts wrote before they used PEFT: matrices by processor and without an alpha."""
        names = {"lora_A": "down", "lora_B": "up"}
        state = {}
        for component, part in self.parts.items():
            for key, value in part.items():
                layer, _, matrix = key.removesuffix(".weight").rpartition(".")
                owner, _, last = layer.removesuffix(".0").rpartition(".")
                if component == "unet":
                    new = f"unet.{owner}.processor.{last}_lora.{names[matrix]}.weight"
                else:
                    new = f"text_encoder.text_model.{layer}.lora_linear_layer.{names[matrix]}.weight"
                state[new] = value * (ALPHA / RANK if matrix == "lora_A" else 1)
        save_file(state, file)
        return file

    def as_kohya(self, file: Path) -> Path:
        """Write what kohya's scripts write and A1111 reads."""
        state = {}
        for component, part in self.parts.items():
            prefix = "lora_unet_" if component == "unet" else "lora_te_text_model_"
            for key, value in part.items():
                layer, _, matrix = key.removesuffix(".weight").rpartition(".")
                name = prefix + layer.replace(".", "_")
                state[f"{name}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = value
                state[f"{name}.alpha"] = torch.tensor(ALPHA)
        save_file(state, file)
        return file

    def as_peft(self, folder: Path, component: str) -> Path:
        """Write what PEFT's own ``save_pretrained`` writes of one component; returns the folder."""
        module = self._modules[component]
        config = module.peft_config["default"]
        folder.mkdir()
        save_file(
            {f"base_model.model.{key}": value for key, value in self.parts[component].items()}, folder / PEFT_FILE
        )
        config.save_pretrained(folder)
        return folder


PEFT_FILE = "adapter_model.safetensors"


def _config(layers: list[str]) -> peft.LoraConfig:
    return peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=layers)
