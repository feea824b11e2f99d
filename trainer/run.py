"""A run as a visible line of stages: pictures, class pictures, training, the model's files.

Each is a module of its own; this file only hands results on.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.checkpoints import disk_guard
from mezzotint.trainer.class_images import Painter, Progress
from mezzotint.trainer.config import TrainConfig
from mezzotint.trainer.data import DreamBoothData
from mezzotint.trainer.module import DreamBooth
from mezzotint.trainer.optimizers import check_optimizer
from mezzotint.trainer.results import save_config, with_matrices, write_files
from mezzotint.trainer.torch_painter import torch_painter
from mezzotint.trainer.watching import Watching, watch

Report = Callable[[str], None]
"""Hears sentences on what a user might not expect."""

_PRECISIONS: Mapping[str, Literal["32-true", "16-mixed", "bf16-mixed"]] = {
    "no": "32-true",
    "fp16": "16-mixed",
    "bf16": "bf16-mixed",
}


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run leaves.

    Attributes:
        folder: the run's.
        rank: of this process; the first one has written the folder.
        num_steps: steps of the optimizer that the model has behind it.
    """

    folder: Path
    rank: int
    num_steps: int


def train(
    config: TrainConfig,
    base: Base,
    painter: AbstractContextManager[Painter] | None = None,
    report: Report = lambda sentence: None,
    progress: Progress = lambda done, total: None,
) -> RunResult:
    """Train ``base`` in place and write the run's folder, ``config.output_dir``.

    Every process of a distributed run calls this.

    Args:
        config: what to learn, and how.
        base: the model to start from.
        painter: paints class pictures, and is left before training starts; None is torch.
        report: hears sentences on what a user might not expect.
        progress: hears of class pictures.

    Raises:
        TrainError: pictures, options or machine are not what a run needs, the loss is no number, the disk is full.
        TrainingStopped: SIGTERM came; the run can go on.
    """
    _check_machine(config)
    torch.manual_seed(config.seed)  # for dropout; all else is drawn by counter
    data = DreamBoothData(config, base)
    for note in data.notes:
        rank_zero_only(report)(note)
    module = DreamBooth(config, with_matrices(config, base))
    watching = watch(config, base, module, data)
    trainer = _trainer(config, watching)
    save_config(config)
    with painter or nullcontext(torch_painter(base, **config.painting)) as paint:
        data.fill_class_images(paint, progress)
    with warnings.catch_warnings(), disk_guard(watching.checkpoints):
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)  # of Lightning's own making
        trainer.fit(module, data, ckpt_path=watching.resume)
    write_files(config, module.trained())
    return RunResult(config.output_dir, trainer.global_rank, trainer.global_step)


def _check_machine(config: TrainConfig) -> None:
    on_gpu = config.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    check_optimizer(config, "cuda" if on_gpu else "cpu")
    if config.mixed_precision == "fp16" and not on_gpu:
        raise TrainError("mixed_precision=fp16: needs an NVIDIA GPU; use no, which on a CPU is the fastest, or bf16")
    if config.strategy.startswith("fsdp") and config.lora_rank:
        raise TrainError(
            f"strategy={config.strategy}: shards whole models, not LoRA's matrices; use ddp, they are small"
        )
    torch.set_float32_matmul_precision("high" if config.allow_tf32 else "highest")


def _trainer(config: TrainConfig, watching: Watching) -> pl.Trainer:
    try:
        return pl.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            num_nodes=config.num_nodes,
            strategy=config.strategy,
            precision=_PRECISIONS[config.mixed_precision],
            max_epochs=-1 if config.max_train_steps else config.num_train_epochs,
            max_steps=config.max_train_steps or -1,
            accumulate_grad_batches=config.gradient_accumulation_steps,
            gradient_clip_val=config.max_grad_norm or None,
            callbacks=watching.callbacks,
            logger=watching.loggers,
            plugins=[watching.state],
            log_every_n_steps=1,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=config.output_dir,
        )
    except (ValueError, MisconfigurationException) as error:
        asked = f"accelerator={config.accelerator}, devices={config.devices}, strategy={config.strategy}"
        raise TrainError(f"{asked}: Lightning cannot run so here ({' '.join(str(error).split())})") from None
