"""Jobs for the compiler on miniatures: small, and alike wherever they can be, so that tests share finished stages."""

from pathlib import Path
from typing import Any

from mezzotint.compile.job import CompileJob, StageEvent, Status
from mezzotint.compile.pipeline import compile_checkpoint
from tests.conftest import CACHE, CALIBRATION_PROMPTS


def job(source: Path, output: Path, **changes: Any) -> CompileJob:
    """Return a job at fp32, of one prompt, two rows and one decoder, as ``tests.conftest.SMALL``; but ``changes``."""
    usual: dict[str, Any] = {"cache": CACHE, "precision": {"": "fp32"}, "max_rows": 2, "prompts": ("a cat",)}
    usual |= {"calibration_prompts": CALIBRATION_PROMPTS, "decoder_parts": 1}
    return CompileJob(source=str(source), output=output, **usual | changes)


def events_of(job: CompileJob) -> list[StageEvent]:
    """Compile and return what was said on the way."""
    events: list[StageEvent] = []
    compile_checkpoint(job, events.append)
    return events


def ends_of(events: list[StageEvent]) -> dict[str, Status]:
    """Return how each stage ended."""
    return {e.stage: e.status for e in events if e.status not in (Status.STARTED, Status.PROGRESS, Status.NOTE)}
