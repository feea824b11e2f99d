"""When a run is saved and what is in a checkpoint: callbacks over Lightning's own.

Saved are the weights that train, their average, optimizer, schedule and random numbers; frozen weights are the base's,
and the position in the data is the step.
"""

import errno
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint

from mezzotint.engines.errors import MezzotintError, TrainError, TrainingStopped
from mezzotint.trainer import random_state
from mezzotint.trainer.checkpoint_folder import LATEST, CheckpointFolder, Saved
from mezzotint.trainer.steps import StepCallback

STATE = "state.ckpt"
"""The file of a checkpoint's folder that Lightning writes and reads."""

_WEIGHTS = ("state_dict", "current_model_state")  # the second is Lightning's name where there is an average


class Checkpoints(StepCallback, Checkpoint):
    """Saves a run every so many steps, at its end, where the validation loss is the lowest yet, and on signals.

    SIGUSR1 saves and goes on; SIGTERM saves and stops the run with TrainingStopped.

    Args:
        folder: where to.
        every: steps between checkpoints.
        model: what a run that goes on must have alike.
        val_loss: gives the validation loss of a step, or None where it was not measured.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        every: int,
        model: Mapping[str, str],
        val_loss: Callable[[int], float | None] = lambda step: None,
    ) -> None:
        self.folder = folder
        self._every = every
        self._model = model
        self._val_loss = val_loss
        self._random: list[dict[str, Any]] = []
        self._signals: set[int] = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals instead of Lightning, which restores all handlers itself; go on with a saved state."""
        super().on_train_start(trainer, pl_module)
        if self._random:
            random_state.restore(self._random[trainer.global_rank % len(self._random)])
        if threading.current_thread() is threading.main_thread():  # no other may
            for number in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(number, self._hear)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Save if it is time. Raises TrainError if the disk is full, TrainingStopped if told to stop."""
        terminate, save = (self._heard(trainer, each) for each in (signal.SIGTERM, signal.SIGUSR1))
        loss = self._val_loss(step)
        is_last = step >= trainer.estimated_stepping_batches
        if step % self._every == 0 or is_last or terminate or save or self._is_best(trainer, loss):
            self._save(trainer, pl_module, step, loss)
        if terminate and not is_last:
            raise TrainingStopped(
                f"stopped by SIGTERM after step {step}, which is saved; go on with --resume-from-checkpoint {LATEST}"
            )

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the random numbers' state of every process."""
        checkpoint["random"] = random_state.gather()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keep that state until training starts."""
        self._random = checkpoint["random"]

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signals.add(number)

    def _heard(self, trainer: Trainer, number: int) -> bool:
        """Say whether any process got a signal since it was last asked."""
        heard = number in self._signals
        self._signals.discard(number)
        return bool(trainer.strategy.reduce_boolean_decision(heard, all=False))

    def _is_best(self, trainer: Trainer, loss: float | None) -> bool:
        if loss is None or not math.isfinite(loss):
            return False
        best = self.folder.best()
        return bool(trainer.strategy.broadcast(best is None or best.val_loss is None or loss < best.val_loss))

    def _save(self, trainer: Trainer, pl_module: LightningModule, step: int, loss: float | None) -> None:
        _check_weights(pl_module, step, self.folder)
        part = self.folder.part(step)
        if trainer.is_global_zero:
            self.folder.begin(step)
        try:
            trainer.save_checkpoint(part / STATE)
            if trainer.is_global_zero:
                self.folder.commit(step, loss, self._model)
        except (OSError, RuntimeError) as error:
            self.folder.abandon(step)
            if (reason := disk_error(error)) is None:
                raise
            raise TrainError(
                f"step {step}: the checkpoint cannot be written to {self.folder.path} ({reason}); make room and "
                f"{_go_on(self.folder.last())}"
            ) from None
        trainer.strategy.barrier()


class LossGuard(Callback):
    """Stops a run at the first loss that is no number, before it reaches a weight. Raises TrainError."""

    def __init__(self, folder: CheckpointFolder) -> None:
        self._folder = folder

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: torch.Tensor) -> None:
        """Look at the loss of a batch."""
        if not torch.isfinite(loss):
            raise _not_finite(trainer.global_step + 1, f"the loss is {loss.item()}", self._folder)


class StateFile(TorchCheckpointIO):
    """Lightning's state as one file without the frozen weights; read, it has the module's own in their place.

    Written straight to its place, which is the caller's to keep whole: Lightning's own way holds the file in memory
    and goes through the system's folder for temporary files.
    """

    def __init__(self, module: LightningModule) -> None:
        self._module = module

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint. Raises OSError or RuntimeError if the disk is full."""
        frozen = self._frozen()
        weights = {name: checkpoint[name] for name in _WEIGHTS if name in checkpoint}
        trained = {key: {n: v for n, v in state.items() if n not in frozen} for key, state in weights.items()}
        with open(path, "wb") as file:  # given a path, torch would not say why a write failed
            torch.save({**checkpoint, **trained}, file)

    def load_checkpoint(self, path: Any, map_location: Any = "cpu", weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint; nothing in it is run. Raises TrainError."""
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's reader lets through whatever a damaged file makes it raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise TrainError(f"{path}: cannot be read as a checkpoint ({reason}); resume from another one") from None
        frozen = self._frozen()
        for key in _WEIGHTS:
            if key in checkpoint:
                checkpoint[key] = {**frozen, **checkpoint[key]}
        return checkpoint

    def _frozen(self) -> dict[str, torch.Tensor]:
        return {name: p.detach() for name, p in self._module.named_parameters() if not p.requires_grad}


def _check_weights(module: LightningModule, step: int, folder: CheckpointFolder) -> None:
    """Refuse to save weights that a gradient which was no number has spoilt. Raises TrainError."""
    for name, weight in module.named_parameters():
        if weight.requires_grad and not torch.isfinite(weight).all():
            raise _not_finite(step, f"{name} holds values that are no numbers", folder)


def _not_finite(step: int, what: str, folder: CheckpointFolder) -> TrainError:
    return TrainError(
        f"step {step}: {what}; lower --learning-rate, or train without --mixed-precision fp16, and "
        f"{_go_on(folder.last())}"
    )


def _go_on(last: Saved | None) -> str:
    if last is None:
        return "begin again (there is no checkpoint yet)"
    return f"go on from {last.path.name}, the last good checkpoint (--resume-from-checkpoint {LATEST})"


@contextmanager
def disk_guard(folder: CheckpointFolder) -> Iterator[None]:
    """Say in a sentence what the disk refused while a run was training: its logs, or pictures on the way.

    Raises:
        TrainError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, MezzotintError) else disk_error(error)
        if reason is None:
            raise
        raise TrainError(
            f"{folder.path.parent}: the run's logs or pictures cannot be written ({reason}); make room and "
            f"{_go_on(folder.last())}"
        ) from None


def disk_error(error: BaseException | None) -> str | None:
    """Return in words what a disk refused, somewhere in an error's causes; torch's writer hides it among its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            return (error.strerror or str(error)).lower()
        error = error.__cause__ or error.__context__
    return None
