"""Step-time curves of this host: the milliseconds of an engine's calls by rows, kept in the user's cache folder.

A bundle carries those of the machine that compiled it; a host's own stand in their place when it loads the bundle, so
that row counts, the most rows of a call and the order of requests follow from what this machine takes.
"""

import json
import logging
import os
import statistics
from collections.abc import Mapping
from pathlib import Path

from mezzotint.engines.backend import Engine
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.timing import call_times, distinct_rows
from mezzotint.engines.variants import stem

logger = logging.getLogger(__name__)

Curve = Mapping[int, float]


def measure_rows(engine: Engine, num_rows: int) -> float:
    """Return the median milliseconds of an engine's calls of ``num_rows``, at the size that it was tuned at."""
    return statistics.median(call_times({"": engine}, distinct_rows(engine.spec, num_rows))[""])


def curve_file(cache_dir: Path, entry: EngineEntry, device: str, num_threads: int) -> Path:
    """Return where the curve of an engine is kept, on one device with so many threads."""
    where = (device or entry.device).lower().replace(os.sep, "-")
    return cache_dir / f"curve-{stem(entry.component, entry.variant)}-{where}-{num_threads}.json"


def read_curve(file: Path) -> dict[int, float]:
    """Return the curve in a file; empty where there is none that can be read."""
    try:
        curve = {int(rows): float(ms) for rows, ms in json.loads(file.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("%s: is no step-time curve (%s); `mezzotint tune` measures it again", file, error)
        return {}
    return curve if all(rows > 0 and ms > 0 for rows, ms in curve.items()) else {}


def write_curve(file: Path, curve: Curve) -> None:
    """Keep a curve, whole or not at all; a cache that cannot be written is no error."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps({str(rows): round(ms, 3) for rows, ms in sorted(curve.items())}) + "\n")
        unfinished.replace(file)
    except OSError as error:
        logger.warning("%s: cannot be written (%s); it is measured again at the next start", file, error)


def with_curve(entry: EngineEntry, curve: Curve) -> EngineEntry:
    """Return an engine's entry with this host's milliseconds; those of other row counts change by the same factor."""
    if not curve:
        return entry
    known = [ms / entry.step_ms[rows] for rows, ms in curve.items() if rows in entry.step_ms]
    factor = statistics.median(known) if known else 1.0
    guessed = {rows: ms * factor for rows, ms in entry.step_ms.items()} if known else {}
    return entry.model_copy(update={"step_ms": dict(sorted((guessed | dict(curve)).items()))})
