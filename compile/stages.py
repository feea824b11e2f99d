"""Stages whose results are kept by content: a finished one is a folder whose name is the hash of all that went in.

A stage writes into a folder of its own that is renamed when it is complete, so a killed run leaves nothing that a
later one could take for a result. What is reused is checked against the digests that were written with it.
"""

import hashlib
import importlib.metadata
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mezzotint.compile.job import Report, StageEvent, Status
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import BundleError, MezzotintError
from mezzotint.engines.folders import remove_leftovers, writer

_EXPORTERS = ("torch", "onnx", "onnxscript", "transformers", "diffusers")
_INDEX = "stage.json"
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True, slots=True)
class StageResult:
    """A stage's outcome: its folder, how it came about, and a JSON value of its own."""

    status: Status
    folder: Path
    detail: Any
    seconds: float
    num_bytes: int


class Stages:
    """Runs stages and keeps their results in ``cache``; ``results`` lists what this run did, by stage name."""

    def __init__(self, cache: Path, report: Report) -> None:
        self._cache = cache
        self._report = report
        self._digests: dict[tuple[int, int, int], str] = {}
        self.results: dict[str, StageResult] = {}

    def progress(self, stage: str, fraction: float | None, detail: str = "") -> None:
        """Say how far a running stage is."""
        self._report(StageEvent(stage, Status.PROGRESS, detail, fraction))

    def note(self, stage: str, sentence: str) -> None:
        """Say what the user might not expect of a stage."""
        self._report(StageEvent(stage, Status.NOTE, sentence))

    def place(self, name: str, inputs: dict[str, Any]) -> Path:
        """Return the folder of a stage's result, whether it is there or not."""
        key = hashlib.sha256(json.dumps([name, inputs], sort_keys=True, default=str).encode()).hexdigest()
        return self._cache / f"{name.replace(' ', '-')}-{key[:24]}"

    def has(self, name: str, inputs: dict[str, Any]) -> bool:
        """Return whether ``run`` would reuse a result."""
        return self._finished(self.place(name, inputs)) is not None

    def run(self, name: str, inputs: dict[str, Any], work: Callable[[Path], Any]) -> StageResult:
        """Run ``work(folder)`` unless the same ``inputs`` have a result; it fills the folder and returns JSON."""
        started = time.perf_counter()
        self._report(StageEvent(name, Status.STARTED))
        folder = self.place(name, inputs)
        index = self._finished(folder)
        status = Status.REUSED if index is not None else Status.BUILT
        if index is None:
            try:
                index = self._work(folder, work)
            except BaseException as error:
                detail = str(error) if isinstance(error, MezzotintError) else type(error).__name__
                self._report(StageEvent(name, Status.FAILED, detail, seconds=time.perf_counter() - started))
                raise
        num_bytes = sum((folder / file).stat().st_size for file in index["files"])
        result = StageResult(status, folder, index["detail"], time.perf_counter() - started, num_bytes)
        self.results[name] = result
        self._report(StageEvent(name, status, seconds=result.seconds, num_bytes=num_bytes))
        return result

    def _work(self, folder: Path, work: Callable[[Path], Any]) -> dict[str, Any]:
        unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}-{writer()}")
        remove_leftovers(self._cache, f"{_UNFINISHED}{folder.name}-")
        unfinished.mkdir(parents=True)
        try:
            detail = work(unfinished)
            files = sorted(path.relative_to(unfinished) for path in unfinished.rglob("*") if path.is_file())
            index = {"files": {str(file): self._digest(unfinished / file) for file in files}, "detail": detail}
            (unfinished / _INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
            if (other := self._finished(folder)) is not None:  # by another compile that ran beside this one
                shutil.rmtree(unfinished)
                return other
            shutil.rmtree(folder, ignore_errors=True)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        return index

    def _finished(self, folder: Path) -> dict[str, Any] | None:
        """Return the index of a complete and undamaged result."""
        try:
            index: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            whole = all(self._digest(folder / file) == digest for file, digest in index["files"].items())
        except (OSError, ValueError, KeyError, BundleError):
            return None
        return index if whole else None

    def _digest(self, path: Path) -> str:
        """Return a file's digest, once for all links to it: weights are linked from stage to stage."""
        found = path.stat()
        key = (found.st_dev, found.st_ino, found.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = file_digest(path)
        return self._digests[key]


def code_digest(*modules: Any) -> str:
    """Return what changes when the code of a stage does."""
    return "".join(file_digest(Path(module.__file__))[:16] for module in modules)


def exporter_versions() -> dict[str, str]:
    """Return the versions of the libraries that make references and exports."""
    return {name: importlib.metadata.version(name) for name in _EXPORTERS}
