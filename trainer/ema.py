"""A moving average of the weights that train, by Lightning's own callback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

Weights = tuple[torch.Tensor, ...] | list[torch.Tensor]
Average = Callable[[Weights, Weights, torch.Tensor | int], None]


class MovingAverage(WeightAveraging):
    """Averages weights after each step; a run ends with the average in the module, and shows it on the way.

    Lightning's callback copies the whole module. Here frozen weights are shared with it, so that the average of a
    LoRA is as large as a LoRA, and the decay rises as in diffusers' ``EMAModel``, for runs of some hundred steps.

    Args:
        decay: what the average keeps at a step, once it has risen; 0 < decay < 1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, multi_avg_fn=rising_average(decay))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share frozen weights, now that they are on the device, and let averages lie beside those that train."""
        assert self._average_model is not None, "Lightning has made it in setup"
        for average, current in zip(self._average_model.module.parameters(), pl_module.parameters(), strict=True):
            average.data = average.data.to(current.device) if current.requires_grad else current.data

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module as it is: a run that is resumed at its end is never here."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the average."""
        super().on_train_end(trainer, pl_module)

    @contextmanager
    def shown(self, trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
        """Lend the average to the module."""
        self.on_validation_epoch_start(trainer, pl_module)
        try:
            yield
        finally:
            self.on_validation_epoch_end(trainer, pl_module)


def rising_average(decay: float) -> Average:
    """Return torch's kind of averaging function: decay min(``decay``, (1 + n) / (10 + n)) at the n-th step."""

    @torch.no_grad()
    def average(averages: Weights, currents: Weights, num_averaged: torch.Tensor | int) -> None:
        n = int(num_averaged)
        rate = 1 - min(decay, (1 + n) / (10 + n))
        for average, current in zip(averages, currents, strict=True):
            if average.data_ptr() != current.data_ptr():
                average.lerp_(current, rate)

    return average
