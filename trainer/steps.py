"""A callback for each step of the optimizer, whatever number of batches makes one."""

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class StepCallback(Callback, ABC):
    """Calls ``on_step`` once after each step of the optimizer, in the order of the trainer's callbacks."""

    _seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step that the run is at."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Call ``on_step`` where the batch ended a step."""
        if trainer.global_step > self._seen:
            self._seen = trainer.global_step
            self.on_step(trainer, pl_module, self._seen)

    @abstractmethod
    def on_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Do something after the step of that number; the first is 1."""
