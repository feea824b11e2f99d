"""What the terminal shows while something runs: moving bars on a terminal, plain lines anywhere else."""

import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from mezzotint.compile.job import StageEvent

_STYLES = {"built": "green", "reused": "cyan", "failed": "red"}
# Bars and advice of the libraries that read checkpoints would tear our own progress apart.
_QUIET = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}


def quiet_libraries() -> None:
    """Keep torch's libraries from writing to the terminal; to be called before they are imported."""
    for variable, value in _QUIET.items():
        os.environ.setdefault(variable, value)


class CompileProgress:
    """A bar for each running stage and one line for each finished one."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def report(self, event: "StageEvent") -> None:
        """Show one event of the compiler."""
        if event.status == "note":
            self._console.print(f"[yellow]note[/] {escape(event.detail)}")
            return
        if event.status not in _STYLES:
            task = self._tasks.get(event.stage)
            if task is None:
                task = self._tasks[event.stage] = self._progress.add_task(event.stage, total=None, detail="")
            total = None if event.fraction is None else 1.0
            self._progress.update(task, total=total, completed=event.fraction, detail=event.detail)
            return
        task = self._tasks.pop(event.stage, None)
        if task is not None:
            self._progress.remove_task(task)
        self._console.print(_finished_line(event))


class PaintProgress:
    """A bar over pictures that are painted; gone when the last one is there."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()

    def report(self, done: int, total: int) -> None:
        """Show how many pictures there are."""
        if self._progress is None and self._console.is_terminal:
            columns = (
                TextColumn("class pictures"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
            )
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task("class pictures")
            self._progress.start()
        if self._progress is not None:
            self._progress.update(self._task, total=total, completed=done)
        if done == total:
            self._stop()
            self._console.print(f"class pictures: {total}")

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def size_text(num_bytes: int) -> str:
    """Return a number of bytes as people say it: ``843 B``, ``1.2 MB``."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _finished_line(event: "StageEvent") -> str:
    style = _STYLES[event.status]
    size = size_text(event.num_bytes) if event.num_bytes else ""
    line = f"{escape(event.stage):<28} [{style}]{event.status.upper():<7}[/] {event.seconds:>8.1f} s {size:>9}"
    return f"{line}  {escape(event.detail)}".rstrip()
