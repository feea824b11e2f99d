"""Step-time curves of this host: the milliseconds of an engine's calls by rows and size, kept in the user's cache.

A bundle carries those of the machine that compiled it, at the size that it was tuned at. A host's own stand in their
place, so that row counts, the most rows of a call and the order of requests follow from what this machine takes.

A busy machine makes calls slower and never faster. So of each size and row count the last ``MAX_ROUNDS`` measurements
are kept, and the least of them counts: one noisy moment is mended by the next quiet one, and a machine that has become
slower for good is believed after as many. Before ``SURE_ROUNDS`` a curve takes no row count away at a start.
"""

import json
import logging
import math
import os
import statistics
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from mezzotint.engines.backend import Engine
from mezzotint.engines.folders import whole_file
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.rows import Curve
from mezzotint.engines.sizes import Size, parse_size
from mezzotint.engines.timing import call_times, distinct_rows
from mezzotint.engines.variants import stem

logger = logging.getLogger(__name__)

MAX_ROUNDS = 5
SURE_ROUNDS = 3
_MAX_SIZES = 32  # of one engine; those that were measured longest ago go
_one_at_a_time = threading.Lock()

Rounds: TypeAlias = Mapping[int, Sequence[float]]
"""Milliseconds of a call by row count: one of each round of measuring, the newest last."""


def measure_rounds(engine: Engine, num_rows: int, lengths: Mapping[str, int] = MappingProxyType({})) -> list[float]:
    """Return milliseconds of an engine's calls of ``num_rows`` in ``SURE_ROUNDS`` rounds, at one size."""
    times = call_times({"": engine}, distinct_rows(engine.spec, num_rows, lengths))[""]
    return [min(times[i::SURE_ROUNDS]) for i in range(SURE_ROUNDS)]


def curve_of(rounds: Rounds) -> dict[int, float]:
    """Return the curve that measurements make."""
    return {rows: min(found) for rows, found in rounds.items()}


def is_sure(rounds: Rounds) -> bool:
    """Whether it was measured often enough to take a row count away."""
    return bool(rounds) and min(map(len, rounds.values())) >= SURE_ROUNDS


def curve_file(cache_dir: Path, entry: EngineEntry, device: str, num_threads: int) -> Path:
    """Return where the curves of an engine are kept, on one device with so many threads."""
    where = (device or entry.device).lower().replace(os.sep, "-")
    return cache_dir / f"curves-{stem(entry.component, entry.variant)}-{where}-{num_threads}.json"


def read_rounds(file: Path) -> dict[Size, Rounds]:
    """Return the measurements in a file by size; empty where there are none that can be read."""
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        found = {
            parse_size(size): {int(rows): [float(ms) for ms in rounds] for rows, rounds in by_rows.items()}
            for size, by_rows in given.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("%s: holds no step-time curves (%s); `mezzotint tune` measures them again", file, error)
        return {}
    each = [(rows, rounds) for by_rows in found.values() for rows, rounds in by_rows.items()]
    good = all(rows > 0 and rounds and all(math.isfinite(ms) and ms > 0 for ms in rounds) for rows, rounds in each)
    return {size: by_rows for size, by_rows in found.items() if by_rows} if good else {}


def add_rounds(file: Path, size: Size, new: Rounds) -> dict[int, float]:
    """Keep further measurements of one size, the newest ``MAX_ROUNDS`` of each row count; returns its curve of now.

    The file is written whole or not at all, and a cache that cannot be written is no error. Instances of one process
    wait for each other; of two processes that write at one time one's measurement is lost, which costs nothing more.
    """
    with _one_at_a_time:
        kept = read_rounds(file)
        before = kept.pop(size, {})
        merged = {
            rows: [*before.get(rows, ()), *(round(ms, 3) for ms in new.get(rows, ()))][-MAX_ROUNDS:]
            for rows in sorted({*before, *new})
        }
        kept[size] = merged
        for oldest in list(kept)[:-_MAX_SIZES]:
            del kept[oldest]
        _write(file, {str(size): by_rows for size, by_rows in kept.items()})
    return curve_of(merged)


def _write(file: Path, content: Mapping[str, Rounds]) -> None:
    try:
        with whole_file(file) as unfinished:
            unfinished.write_text(json.dumps(content) + "\n", encoding="utf-8")
    except OSError as error:
        logger.warning("%s: cannot be written (%s); it is measured again at the next start", file, error)


def completed(guess: Curve, curve: Curve) -> dict[int, float]:
    """Return a measured curve with a guess's other row counts, changed by the same factor as those that both have."""
    known = [ms / guess[rows] for rows, ms in curve.items() if rows in guess]
    factor = statistics.median(known) if known else 1.0
    guessed = {rows: ms * factor for rows, ms in guess.items()} if known or not curve else {}
    return dict(sorted((guessed | dict(curve)).items()))


def with_curve(entry: EngineEntry, curve: Curve) -> EngineEntry:
    """Return an engine's entry with this host's milliseconds; those of other row counts change by the same factor."""
    return entry.model_copy(update={"step_ms": completed(entry.step_ms, curve)}) if curve else entry


class EngineCurves:
    """The curves of one engine at any size: as measured here, or scaled by area from the nearest that was.

    Args:
        entry: the engine; its ``step_ms`` are those at ``own``.
        own: the size that it was tuned at.
    """

    def __init__(self, entry: EngineEntry, own: Size) -> None:
        self._entry = entry
        self._own = own
        self._measured: dict[Size, Curve] = {}

    def learn(self, size: Size, curve: Curve) -> None:
        """Take a curve that was measured here."""
        self._measured[size] = curve

    def at(self, size: Size) -> dict[int, float]:
        """Return the curve of a size; empty where nothing is known of any."""
        known = {self._own, *self._measured} if self._entry.step_ms else set(self._measured)
        guess: Curve
        if size == self._own:
            guess = self._entry.step_ms
        elif others := known - {size}:
            nearest = min(sorted(others), key=lambda other: _distance(size, other))
            guess = {rows: ms * size.area / nearest.area for rows, ms in self._known(nearest).items()}
        else:
            guess = {}
        return completed(guess, self._measured.get(size, {}))

    def _known(self, size: Size) -> dict[int, float]:
        """Return the curve of a size of which something is known, without a look at others."""
        return completed(self._entry.step_ms if size == self._own else {}, self._measured.get(size, {}))


def _distance(one: Size, other: Size) -> tuple[float, int]:
    return abs(math.log(one.area / other.area)), abs(one.tokens - other.tokens)
