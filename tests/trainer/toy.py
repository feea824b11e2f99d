"""A small run with every callback in it: frozen and trained weights, dropout, accumulation, epochs that do not divide.

``python -m tests.trainer.toy FOLDER [option=value …]`` makes it in a process of its own, for tests that kill it.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ProgressBar
from torch.optim.lr_scheduler import LambdaLR

from mezzotint.trainer.checkpoint_folder import CheckpointFolder, check_model
from mezzotint.trainer.checkpoints import STATE, Checkpoints, LossGuard, StateFile
from mezzotint.trainer.ema import MovingAverage
from mezzotint.trainer.loggers import LinesLogger, Measures
from mezzotint.trainer.validation import Validation, as_trained

MODEL = {"base": "toy", "trained": "all"}


@dataclass(frozen=True)
class Options:
    """What a toy run is told; ``nan_at`` and ``width`` are for accidents."""

    steps: int = 7
    every: int = 2
    accumulation: int = 2
    ema: float = 0.9
    validate: int = 3
    limit: int | None = None
    resume: str | None = None
    nan_at: int = -1
    nan_weight_at: int = -1
    width: int = 8
    devices: int = 1


class Toy(pl.LightningModule):
    """A linear layer behind a frozen one, with dropout between them; the loss is of what a batch's keys draw."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.options = options
        self.frozen = torch.nn.Linear(4, options.width).requires_grad_(False)
        self.dropout = torch.nn.Dropout(0.5)
        self.trained = torch.nn.Linear(options.width, 4)
        self.losses: dict[int, float] = {}

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        pixels = batch["pixels"]
        return (self.trained(self.dropout(self.frozen(pixels))) - pixels).square().mean()

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        step, loss = self.trainer.global_step + 1, self.loss(batch)
        if step == self.options.nan_at:
            loss = loss * float("nan")
        self.losses[step] = self.losses.get(step, 0.0) + loss.item()
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.trainer.global_step + 1 == self.options.nan_weight_at:
            assert self.trained.weight.grad is not None
            self.trained.weight.grad.fill_(float("nan"))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.trained.parameters(), lr=0.1)
        schedule = LambdaLR(optimizer, lambda step: 1 / (1 + step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Keys:
    """Three steps an epoch, from the step that the run is at."""

    def __init__(self, accumulation: int) -> None:
        self.accumulation = accumulation
        self.trainer: pl.Trainer | None = None

    def __len__(self) -> int:
        return 3 * self.accumulation

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        assert self.trainer is not None
        first = self.trainer.global_step * self.accumulation
        return (batch_of(first + i) for i in range(len(self)))

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        pass


def batch_of(number: int) -> dict[str, torch.Tensor]:
    pixels = torch.randn(2, 4, generator=torch.Generator().manual_seed(number))
    return {"pixels": pixels, "keys": torch.tensor([2 * number, 2 * number + 1])}


def toy_trainer(folder: Path, options: Options, module: Toy, *more: pl.Callback) -> tuple[pl.Trainer, Keys]:
    average = MovingAverage(options.ema) if options.ema else None
    shown = average.shown if average else as_trained
    validation = Validation(lambda: [batch_of(1 << 20)], module.loss, options.validate, shown)
    checkpoints = CheckpointFolder(folder / "checkpoints", options.limit)
    keys = Keys(options.accumulation)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=options.devices,
        max_steps=options.steps,
        accumulate_grad_batches=options.accumulation,
        default_root_dir=folder,
        logger=[LinesLogger(folder / "logs")],
        log_every_n_steps=1,
        enable_progress_bar=any(isinstance(each, ProgressBar) for each in more),
        enable_model_summary=False,
        plugins=[StateFile(module)],
        callbacks=[
            LossGuard(checkpoints),
            *([average] if average else []),
            Measures(),
            validation,
            *more,
            Checkpoints(checkpoints, options.every, MODEL, validation.at),
        ],
    )
    keys.trainer = trainer
    return trainer, keys


def run(folder: Path, options: Options = Options(), *more: pl.Callback) -> Toy:
    """Make a run, or go on with one, and return its module."""
    module = Toy(options)
    trainer, keys = toy_trainer(folder, options, module, *more)
    checkpoints = CheckpointFolder(folder / "checkpoints")
    found = checkpoints.find(options.resume) if options.resume else None
    if found:
        check_model(found, MODEL)
    trainer.fit(module, keys, ckpt_path=found.path / STATE if found else None, weights_only=True)
    return module


if __name__ == "__main__":
    told = dict(argument.split("=") for argument in sys.argv[2:])
    fields = {name: value if name == "resume" else json.loads(value) for name, value in told.items()}
    made = run(Path(sys.argv[1]), replace(Options(), **fields))
    sys.stdout.write(json.dumps(made.losses))
