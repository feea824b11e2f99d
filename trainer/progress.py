"""How far a run is: a bar with loss and time left on a terminal, a line now and then anywhere else."""

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mezzotint.trainer.loggers import LOSS

_SMOOTH = 0.9  # the loss of one batch hangs on its timesteps; shown is an average over some ten
LINE_SECONDS = 30.0
"""Between lines where there is no terminal."""


class RunProgress(ProgressBar):
    """One bar over all steps of a run; Lightning's own has one for each epoch, and an epoch here is a few seconds.

    Args:
        console: where to; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._loss: float | None = None
        self._enabled = True
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._began = (0.0, 0)
        self._last_line = 0.0

    def disable(self) -> None:
        """Show nothing; for all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show it again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar at the step that the run is at."""
        self._began = (time.monotonic(), trainer.global_step)
        self._last_line = time.monotonic()
        if not self._enabled:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps  {task.fields[loss]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        total = trainer.estimated_stepping_batches
        self._task = self._bar.add_task("training", total=total, completed=trainer.global_step, loss="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the steps that are done and the loss, averaged over some ten of them."""
        if self._bar is None:
            return
        if LOSS in trainer.callback_metrics:
            latest = trainer.callback_metrics[LOSS].item()
            self._loss = latest if self._loss is None else _SMOOTH * self._loss + (1 - _SMOOTH) * latest
        shown = "" if self._loss is None else f"loss {self._loss:.4f}"
        self._bar.update(self._task, completed=trainer.global_step, loss=shown)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            self._say(trainer, shown)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def _say(self, trainer: Trainer, loss: str) -> None:
        began, first = self._began
        steps, total = trainer.global_step - first, trainer.estimated_stepping_batches
        if steps:
            left = (time.monotonic() - began) / steps * (total - trainer.global_step)
            minutes, seconds = divmod(round(left), 60)
            parts = [f"step {trainer.global_step} of {total}", loss, f"{minutes}:{seconds:02d} left"]
            self._console.print(", ".join(part for part in parts if part))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
