"""The validation loss: the run's own loss on a few examples with noise and timesteps that never change."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from lightning.pytorch import LightningModule, Trainer

from mezzotint.trainer.examples import Batch, Examples
from mezzotint.trainer.loggers import log_values
from mezzotint.trainer.steps import StepCallback

FIRST_KEY = 1 << 41
"""Validation's examples are numbered from about here, so that no step of a run draws what they draw."""

NUM_EXAMPLES = 16

Shown = Callable[[Trainer, LightningModule], AbstractContextManager[None]]
"""Puts the weights in the module that a run would give; ``MovingAverage.shown`` is one."""


def as_trained(trainer: Trainer, pl_module: LightningModule) -> AbstractContextManager[None]:
    """Leave the weights as they are: what a run without an average would give."""
    return nullcontext()


class Validation(StepCallback):
    """Measures and logs ``val/loss`` before the first step, every so many steps, and after the last one.

    Every process measures all of it, so that they agree to the bit without asking each other.

    Args:
        batches: what to measure on; asked for once, when training starts.
        loss: the loss of a batch.
        every: steps between measures.
        shown: lends the weights to measure.
    """

    def __init__(
        self,
        batches: Callable[[], Sequence[Batch]],
        loss: Callable[[Batch], torch.Tensor],
        every: int,
        shown: Shown = as_trained,
    ) -> None:
        self._make_batches = batches
        self._loss = loss
        self._every = every
        self._shown = shown
        self._batches: Sequence[Batch] = ()
        self._measured: tuple[int, float] | None = None

    def at(self, step: int) -> float | None:
        """Return the loss after a step, if it has just been measured."""
        return self._measured[1] if self._measured and self._measured[0] == step else None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the batches, and measure the model that the run starts from."""
        super().on_train_start(trainer, pl_module)
        self._batches = self._make_batches()
        if trainer.global_step == 0:
            self._measure(trainer, pl_module, 0)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Measure if it is time."""
        if step % self._every == 0 or step >= trainer.estimated_stepping_batches:
            self._measure(trainer, pl_module, step)

    def _measure(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        total, num_rows = 0.0, 0
        with evaluating(trainer, pl_module, self._shown):
            for batch in self._batches:
                batch = {name: rows.to(pl_module.device) for name, rows in batch.items()}
                with trainer.precision_plugin.forward_context():
                    total += self._loss(batch).item() * len(batch["keys"])
                num_rows += len(batch["keys"])
        self._measured = (step, total / num_rows)
        log_values(trainer, {"val/loss": total / num_rows}, step)


def validation_batches(examples: Examples, batch_size: int, num_examples: int = NUM_EXAMPLES) -> list[Batch]:
    """Return batches of the run's own pictures under keys that only validation has; the same for every run."""
    first = (FIRST_KEY // len(examples) + 1) * len(examples)
    numbers = range(first, first + num_examples)
    return [examples[numbers[i : i + batch_size]] for i in range(0, num_examples, batch_size)]


@contextmanager
def evaluating(trainer: Trainer, pl_module: LightningModule, shown: Shown) -> Iterator[None]:
    """Use the module within a run as it will be used after it, and leave no trace: weights, modes, random numbers."""
    modes = [(module, module.training) for module in pl_module.modules()]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        devices = [pl_module.device] if pl_module.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices))
        stack.enter_context(shown(trainer, pl_module))
        pl_module.eval()
        try:
            yield
        finally:
            for module, training in modes:
                module.training = training
