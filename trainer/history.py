"""The loss of each step of a run, for whoever started it."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class History(Callback):
    """Keeps the loss of each step of this process: the mean over the batches that make one."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._sum = 0.0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin at the step that the run is at."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add a batch's loss, which Lightning has divided by the number of batches of a step."""
        self._sum += float(outputs["loss"])
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            self.losses.append(self._sum)
            self._sum = 0.0
