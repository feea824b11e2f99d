"""Pictures of one prompt that a run paints on the way, always from the same noise."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from mezzotint.trainer.class_images import Painter
from mezzotint.trainer.loggers import log_pictures
from mezzotint.trainer.steps import StepCallback
from mezzotint.trainer.validation import Shown, as_trained, evaluating

FIRST_SEED = 0


class Samples(StepCallback):
    """Paints before the first step, every so many steps and after the last one, into ``step-000100-0.png`` and so on.

    Args:
        folder: where to.
        prompt: what to paint.
        count: how many pictures, of seeds from 0.
        every: steps between them.
        painter: paints with the modules that are trained, wherever they are.
        shown: lends the weights to paint with.
    """

    def __init__(
        self, folder: Path, prompt: str, count: int, every: int, painter: Painter, shown: Shown = as_trained
    ) -> None:
        self._folder = folder
        self._prompt = prompt
        self._count = count
        self._every = every
        self._painter = painter
        self._shown = shown

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Paint with the model that the run starts from."""
        super().on_train_start(trainer, pl_module)
        if trainer.global_step == 0:
            self._paint(trainer, pl_module, 0)

    def on_step(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        """Paint if it is time."""
        if step % self._every == 0 or step >= trainer.estimated_stepping_batches:
            self._paint(trainer, pl_module, step)

    def _paint(self, trainer: Trainer, pl_module: LightningModule, step: int) -> None:
        if not trainer.is_global_zero:
            return
        seeds = range(FIRST_SEED, FIRST_SEED + self._count)
        with evaluating(trainer, pl_module, self._shown):
            pictures = self._painter([self._prompt] * self._count, seeds)
        self._folder.mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(sample_path(self._folder, step, number))
        log_pictures(trainer, "samples", pictures, step)


def sample_path(folder: Path, step: int, number: int) -> Path:
    """Return the file of a sample."""
    return folder / f"step-{step:06d}-{number}.png"


def samples_by_step(folder: Path) -> dict[int, list[Path]]:
    """Return the samples of a folder, by step and number."""
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.glob("step-*-*.png")):
        found.setdefault(int(path.stem.split("-")[1]), []).append(path)
    return found
