"""All that watches a run, put together: what saves it, measures it, shows it."""

from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.checkpoint_folder import CheckpointFolder, check_model
from mezzotint.trainer.checkpoints import STATE, Checkpoints, LossGuard, StateFile
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.data import DreamBoothData
from mezzotint.trainer.ema import MovingAverage
from mezzotint.trainer.loggers import Measures, make_loggers
from mezzotint.trainer.module import DreamBooth
from mezzotint.trainer.progress import RunProgress
from mezzotint.trainer.samples import Samples
from mezzotint.trainer.torch_painter import torch_painter
from mezzotint.trainer.validation import Shown, Validation, as_trained, validation_batches


@dataclass(frozen=True, slots=True)
class Watching:
    """What Lightning's trainer is given.

    Attributes:
        callbacks: in the order in which they must be called: averaged, measured, shown, saved.
        loggers: who is told.
        state: how Lightning's state is written and read, a plugin.
        resume: the state to go on from; None begins a run.
        checkpoints: where the run is saved.
    """

    callbacks: list[pl.Callback]
    loggers: list[Logger]
    state: StateFile
    resume: Path | None
    checkpoints: CheckpointFolder


def watch(config: TrainConfig, base: Base, module: DreamBooth, data: DreamBoothData) -> Watching:
    """Return what watches a run.

    Raises:
        TrainError: the checkpoint to go on from is not there or of another model, a new run would be written over an
            earlier one, or a logger is not installed.
    """
    run, is_sharded = config.output_dir, config.strategy.startswith("fsdp")
    if is_sharded and config.ema_decay:
        raise TrainError(f"ema_decay={config.ema_decay}: no average is kept of shards; use --strategy ddp, or 0")
    checkpoints = CheckpointFolder(run / "checkpoints", config.checkpoints_total_limit)
    model = identity(config, base)
    resume = _resume(config, checkpoints, model)
    average = MovingAverage(config.ema_decay) if config.ema_decay else None
    shown = average.shown if average else as_trained
    validation = Validation(
        lambda: validation_batches(data.examples, config.train_batch_size),
        lambda batch: module.losses(batch).total,
        config.validation_steps,
        shown,
    )
    callbacks = [LossGuard(checkpoints), *([average] if average else []), Measures()]
    if not is_sharded:  # shards compute nothing outside of a step
        callbacks += [validation, *_samples(config, base, shown)]
    callbacks += [RunProgress(), Checkpoints(checkpoints, config.checkpointing_steps, model, validation.at)]
    loggers = make_loggers(config.report_to, run / "logs", run.name)
    return Watching(callbacks, loggers, StateFile(module), resume, checkpoints)


def identity(config: TrainConfig, base: Base) -> dict[str, str]:
    """Return what two runs must have alike for one to go on from the other's checkpoint, in words."""
    lora = f"rank {config.lora_rank}, alpha {config.lora_alpha:g}" if config.lora_rank else "none"
    return {
        "base": base.digest,
        "trained": "UNet and text encoder" if config.train_text_encoder else "UNet",
        "LoRA": lora,
        "LoRA layers": " ".join(config.lora_layers) or "default" if config.lora_rank else "none",
        "optimizer": config.optimizer,
        "average": "kept" if config.ema_decay else "none",
    }


def _samples(config: TrainConfig, base: Base, shown: Shown) -> list[pl.Callback]:
    if not config.validation_prompt:
        return []
    painter = torch_painter(base, **config.painting)
    prompt, count = config.validation_prompt, config.num_validation_images
    return [Samples(config.output_dir / "samples", prompt, count, config.validation_steps, painter, shown)]


def _resume(config: TrainConfig, checkpoints: CheckpointFolder, model: dict[str, str]) -> Path | None:
    if config.resume_from_checkpoint is None:
        checkpoints.refuse_to_mix()
        return None
    saved = checkpoints.find(config.resume_from_checkpoint)
    if saved is None:
        return None
    check_model(saved, model)
    return saved.path / STATE
