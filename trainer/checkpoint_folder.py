"""The checkpoints of a run on the disk: which are there, how one comes whole, which one goes.

A checkpoint is written beside its place, flushed, and renamed: a folder ``step-000100`` is whole, whatever happened.
Knows nothing of torch; what is in a checkpoint is its writer's business.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.atomic import write_file

LATEST = "latest"
"""The word for a run's last checkpoint, as diffusers has it."""

_ABOUT = "checkpoint.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """A whole checkpoint.

    Attributes:
        path: its folder.
        step: steps of the optimizer that it has behind it.
        val_loss: the validation loss at that step, where it was measured.
        model: what must be the same in a run that goes on from it: the base's digest, what of it is trained, how.
        number: counts up as a run's checkpoints are written: one that was resumed from an earlier step has less steps.
    """

    path: Path
    step: int
    val_loss: float | None
    model: Mapping[str, str]
    number: int = 0


class CheckpointFolder:
    """A run's ``checkpoints/``: ``step-000100/`` and so on, and the links ``last`` and ``best``.

    Args:
        path: the folder; it need not be there yet.
        limit: checkpoints to keep; None keeps all.
    """

    def __init__(self, path: Path, limit: int | None = None) -> None:
        self.path = path
        self._limit = limit

    def saved(self) -> list[Saved]:
        """Return all whole checkpoints, in the order in which they were written."""
        found = [read_checkpoint(path) for path in self.path.glob("step-*")]
        return sorted((each for each in found if each), key=lambda each: (each.number, each.step))

    def last(self) -> Saved | None:
        """Return the checkpoint that was written last."""
        return next(reversed(self.saved()), None)

    def best(self) -> Saved | None:
        """Return the checkpoint of the lowest validation loss; of equal ones, the first."""
        return min((each for each in self.saved() if each.val_loss is not None), key=_loss, default=None)

    def begin(self, step: int) -> Path:
        """Make and return the folder that the checkpoint of a step is written into; what a killed run left goes."""
        for leftover in self.path.glob(".step-*"):
            shutil.rmtree(leftover)
        part = self.part(step)
        part.mkdir(parents=True)
        return part

    def commit(self, step: int, val_loss: float | None, model: Mapping[str, str]) -> Saved:
        """Put what was written since ``begin`` in its place, move the links, and remove what is over the limit.

        Raises:
            OSError: the disk is full; nothing has changed.
        """
        part, place = self.part(step), self.path / f"step-{step:06d}"
        last = self.last()
        number = last.number + 1 if last else 1
        about = {"format": _FORMAT, "step": step, "val_loss": val_loss, "model": dict(model), "number": number}
        write_file(part / _ABOUT, json.dumps(about, indent=2).encode())
        for path in [*part.rglob("*"), part]:
            _flush(path)
        if place.exists():  # a run that was resumed from an earlier step comes here again
            place.rename(self.path / f".{place.name}.old")
        part.rename(place)
        _flush(self.path)
        shutil.rmtree(self.path / f".{place.name}.old", ignore_errors=True)
        self._keep_to_limit()
        return Saved(place, step, val_loss, model, number)

    def abandon(self, step: int) -> None:
        """Remove what was written since ``begin``."""
        shutil.rmtree(self.part(step), ignore_errors=True)

    def find(self, which: str) -> Saved | None:
        """Return the checkpoint that ``resume_from_checkpoint`` names: ``latest``, a folder, or its name here.

        Returns:
            None for ``latest`` where there is none yet: a job that is always started alike begins anew.

        Raises:
            TrainError: there is no such checkpoint.
        """
        if which == LATEST:
            return self.last()
        for path in (self.path / which, Path(which)):
            if found := read_checkpoint(path.resolve()):
                return found
        names = ", ".join(each.path.name for each in self.saved()) or "none"
        raise TrainError(f"{which}: is no checkpoint; {self.path} has {names}: name one of them, or {LATEST}")

    def refuse_to_mix(self) -> None:
        """Refuse a new run where another one's checkpoints are. Raises TrainError."""
        if last := self.last():
            raise TrainError(
                f"{self.path}: has checkpoints of an earlier run, up to {last.path.name}; go on from them "
                f"(--resume-from-checkpoint {LATEST}) or choose another --output-dir"
            )

    def part(self, step: int) -> Path:
        """Return where the checkpoint of a step is while it is written."""
        return self.path / f".step-{step:06d}.part"

    def _keep_to_limit(self) -> None:
        """Remove checkpoints over the limit: the last one stays, then the best one, then the newest."""
        saved, best = self.saved(), self.best()
        ranked = dict.fromkeys([saved[-1].path, *([best.path] if best else []), *(each.path for each in saved[::-1])])
        for path in list(ranked)[self._limit :] if self._limit else ():
            aside = path.rename(path.with_name(f".{path.name}.old"))
            shutil.rmtree(aside)
        _link(self.path / "last", saved[-1])
        _link(self.path / "best", self.best())


def read_checkpoint(path: Path) -> Saved | None:
    """Return what a folder says of itself; None where it is no checkpoint."""
    try:
        about = json.loads((path / _ABOUT).read_bytes())
        saved = Saved(path, int(about["step"]), about["val_loss"], about["model"], int(about.get("number", 0)))
        return saved if about["format"] == _FORMAT else None
    except (OSError, ValueError, KeyError):
        return None


def check_model(saved: Saved, model: Mapping[str, str]) -> None:
    """Refuse a checkpoint of another model, or of another way to train it. Raises TrainError."""
    differ = [name for name in {**saved.model, **model} if saved.model.get(name) != model.get(name)]
    if differ:
        theirs, ours = (_words(each, differ) for each in (saved.model, model))
        raise TrainError(
            f"{saved.path}: is a checkpoint of another model ({theirs}) than this run's ({ours}); "
            "resume with the base and the options that it was made with, or begin a new run"
        )


def _words(model: Mapping[str, str], names: list[str]) -> str:
    return ", ".join(f"{name} {model.get(name, 'none')}" for name in names)


def _loss(saved: Saved) -> float:
    return float("inf") if saved.val_loss is None else saved.val_loss


def _flush(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(link: Path, target: Saved | None) -> None:
    """Let a link point to a checkpoint beside it, at once; no target takes it away."""
    if target is None:
        link.unlink(missing_ok=True)
        return
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target.path.name, target_is_directory=True)
    part.replace(link)
