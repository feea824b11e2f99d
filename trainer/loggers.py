"""Who is told how a run goes: a file of lines that needs nobody, TensorBoard, and Weights & Biases, offline too."""

import json
import os
import resource
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.steps import StepCallback

LINES = "metrics.jsonl"

LOSS = "train/loss"
"""The name of a step's loss."""

Picture = npt.NDArray[np.uint8]


class LinesLogger(Logger):
    """Appends each logged mapping as a line of JSON with its ``step``; of two values of a step the later one counts."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / LINES

    @property
    def name(self) -> str:
        """Nothing: it is a file of the run's folder."""
        return ""

    @property
    def version(self) -> str:
        """Nothing: a run that goes on writes on."""
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's ``config.yaml`` has them."""


def read_lines(folder: Path) -> dict[int, dict[str, float]]:
    """Return what ``LinesLogger`` wrote, by step; a line that a killed process left half is passed over."""
    path, found = folder / LINES, dict[int, dict[str, float]]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        found.setdefault(values.pop("step"), {}).update(values)
    return dict(sorted(found.items()))


def make_loggers(report_to: str, folder: Path, name: str) -> list[Logger]:
    """Return the loggers of a run in its ``logs`` folder.

    W&B writes files that ``wandb sync`` sends later; only with ``WANDB_MODE=online`` does it talk to its server.

    Args:
        report_to: ``tensorboard``, ``wandb``, ``all`` or ``none``; the file of lines is always there.
        folder: the run's ``logs``.
        name: what W&B calls the run.

    Raises:
        TrainError: the library is not installed.
    """
    loggers: list[Logger] = [LinesLogger(folder)]
    try:
        if report_to in ("tensorboard", "all"):
            loggers.append(TensorBoardLogger(folder, name="", version="tensorboard", default_hp_metric=False))
        if report_to in ("wandb", "all"):
            offline = os.environ.get("WANDB_MODE", "offline") != "online"
            folder.mkdir(parents=True, exist_ok=True)
            loggers.append(WandbLogger(name=name, save_dir=folder, project="mezzotint", offline=offline))
    except ModuleNotFoundError as error:
        raise TrainError(
            f"report_to={report_to}: {error.name or report_to} is not installed; "
            "`pip install 'mezzotint[train]'`, or --report-to none"
        ) from None
    return loggers


def log_values(trainer: Trainer, values: Mapping[str, float], step: int) -> None:
    """Tell every logger."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(values), step)


def log_pictures(trainer: Trainer, name: str, pictures: Sequence[Picture], step: int) -> None:
    """Show pictures, uint8 [h, w, 3], to those loggers that take some; for the first process alone."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_images(name, np.stack(pictures), step, dataformats="NHWC")
        if isinstance(logger, WandbLogger):
            logger.log_image(name, list(pictures), step)


class Measures(StepCallback):
    """Logs loss and learning rate of each step, seconds of each epoch and the peak of memory.

    A step's loss is the mean over its batches and processes; Lightning's own logging has the last batch alone, and
    counts steps from 0.
    """

    def __init__(self) -> None:
        self._rate = 0.0
        self._loss = 0.0
        self._epoch_began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._epoch_began = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Keep the rate of this step; the schedule has moved on when it ends."""
        group = trainer.optimizers[0].param_groups[0]
        self._rate = float(group["lr"]) * float(group.get("d", 1.0))  # d is Prodigy's own factor

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch's loss, which Lightning has divided by the batches of a step."""
        pl_module.log("step", float(trainer.global_step), batch_size=1)
        self._loss += float(outputs["loss"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Log the loss and the learning rate of the step."""
        pl_module.log(LOSS, self._loss, prog_bar=True, sync_dist=trainer.world_size > 1, batch_size=1)
        log_values(trainer, {"lr": self._rate}, step)
        self._loss = 0.0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's time and the memory."""
        seconds = time.monotonic() - self._epoch_began
        log_values(trainer, {"epoch_seconds": seconds, **peak_memory_mib()}, trainer.global_step)


def peak_memory_mib() -> dict[str, float]:
    """Return the most memory that this process has had, and the most of the GPU that torch has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
    if torch.cuda.is_available():
        peaks["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return peaks
