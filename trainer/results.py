"""What a run writes into its folder: what it was told, and the model in every form that others read.

| file | is |
| --- | --- |
| config.yaml | the whole configuration; `--config` starts the same run from it |
| model/ | the diffusers folder, float32 |
| model-fp16/ | the same in half precision |
| NAME.safetensors | the same as one file in CompVis' layout, half precision |
| lora/ | instead of these, where matrices were trained: diffusers' and kohya's files |
| index.html, contact-sheet.png | the run to look at |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from safetensors import SafetensorError

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.config import CONFIG, TrainConfig
from mezzotint.trainer.lora import UNET_LAYERS, LoraSettings, add_lora, save_lora
from mezzotint.trainer.model_card import ModelCard, licence_of, public_name
from mezzotint.trainer.output import save_model
from mezzotint.trainer.pictures import find_pictures
from mezzotint.trainer.sheet import write_sheet
from mezzotint.trainer.single_file import write_single_file

MODEL = "model"
"""The diffusers folder in a run's."""

LORA = "lora"
"""The folder of a LoRA's files in a run's."""


def with_matrices(config: TrainConfig, base: Base) -> Base:
    """Put LoRA's matrices beside the base's layers, where they are asked for, and return it."""
    if config.lora_rank:
        settings = LoraSettings(
            config.lora_rank, config.lora_alpha, config.lora_dropout, config.lora_layers or UNET_LAYERS
        )
        add_lora(base.unet, base.text_encoder if config.train_text_encoder else None, settings, seed=config.seed)
    return base


@rank_zero_only
def save_config(config: TrainConfig) -> None:
    """Write what the run was told; a run that went on is started anew from its beginning. Raises TrainError."""
    with _writing(config):
        config.output_dir.mkdir(parents=True, exist_ok=True)
        config.model_copy(update={"resume_from_checkpoint": None}).save(config.output_dir / CONFIG)


@rank_zero_only
def write_files(config: TrainConfig, base: Base) -> None:
    """Write the trained model and the page about the run. Raises TrainError."""
    folder, card = config.output_dir, _card(config, base)
    with _writing(config):
        if config.lora_rank:
            save_lora(_trained(config, base), folder / LORA, card)
        else:
            save_model(base, folder / MODEL, card)
            save_model(base, folder / f"{MODEL}-fp16", card, dtype=torch.float16)
            write_single_file(base, folder / f"{card.name}.safetensors", dtype=torch.float16)
        pictures = [path for concept in config.all_concepts for path in find_pictures(concept.instance_data_dir)]
        facts = {"base": base.name, "optimizer": config.optimizer, "learning rate": f"{config.learning_rate:g}"}
        write_sheet(folder, card.prompts[0] if card.prompts else card.name, facts, pictures)


@contextmanager
def _writing(config: TrainConfig) -> Iterator[None]:
    """Say in a sentence what the disk refused."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise TrainError(
            f"{config.output_dir}: the run's files cannot be written ({reason}); make room or choose another folder; a "
            "run that was trained to its end writes them with --resume-from-checkpoint latest, and trains no step again"
        ) from None


def _trained(config: TrainConfig, base: Base) -> dict[str, Any]:
    return {"unet": base.unet, **({"text_encoder": base.text_encoder} if config.train_text_encoder else {})}


def _card(config: TrainConfig, base: Base) -> ModelCard:
    return ModelCard(
        name=config.output_dir.resolve().name,
        base_name=public_name(config.pretrained_model_name_or_path, base.name),
        base_digest=base.digest,
        licence=licence_of(Path(config.pretrained_model_name_or_path)),
        prompts=[concept.instance_prompt for concept in config.all_concepts if concept.instance_prompt],
        settings=config.model_dump(mode="json"),
        is_lora=bool(config.lora_rank),
    )
