"""What a server does beside its requests: it prepares row counts and sizes, and learns this host's step times.

Those are measured between requests, by the loop's own thread, hold from its next call on, and are kept for the next
start. Rounds follow each other ever more rarely, so that what a noisy moment gave is mended (``curves.py``).
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from mezzotint.engines.backend import Engine, KnowsReady
from mezzotint.engines.curves import add_rounds, curve_of, read_rounds
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.rows import Curve
from mezzotint.engines.sizes import Size, axis_lengths, own_size, size_of_engine
from mezzotint.engines.timing import Inputs, call_ms, distinct_rows

logger = logging.getLogger(__name__)

_CALLS = 3
_AGAIN_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # for a size that has become usual
_SHARE = 100  # a round is followed by a pause this many times as long
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 60.0, 3600.0
_OFTEN = 4  # pictures of a size until it is learnt
_MAX_SIZES = 8  # that are learnt beside the bundle's own
_MAX_PREPARED_SIZES = 2  # of these: an engine keeps 16 shapes, four row counts of each size
_MAX_COUNTED = 256

Ask: TypeAlias = Callable[[Callable[[], None]], None]
OnCurve: TypeAlias = Callable[[EngineKey, Size, Curve], None]


class Quiet:
    """Lets one call at a time be measured, where no engine loop of a host has a request."""

    def __init__(self) -> None:
        self._idle: list[Callable[[], bool]] = []
        self._measuring = threading.Lock()

    def join(self, is_idle: Callable[[], bool]) -> None:
        """Count an engine loop in."""
        self._idle.append(is_idle)

    def call(self, piece: Callable[[], float]) -> float | None:
        """Return what ``piece`` gives; None where it would disturb a request, or another's measurement."""
        if not all(idle() for idle in self._idle) or not self._measuring.acquire(blocking=False):
            return None
        try:
            return piece()
        finally:
            self._measuring.release()


class AskedSizes:
    """The sizes that pictures were asked for in; the loop's thread notes them and any may ask."""

    def __init__(self) -> None:
        self._counts: Counter[Size] = Counter()

    def note(self, size: Size, num_images: int) -> None:
        """Count pictures of a size."""
        if size in self._counts or len(self._counts) < _MAX_COUNTED:
            self._counts[size] += num_images

    def often(self) -> list[Size]:
        """Return those that were asked for often, the most first."""
        return [size for size, num in Counter(dict(self._counts)).most_common(_MAX_SIZES) if num >= _OFTEN]


@dataclass(frozen=True, slots=True)
class Learning:
    """What a server may learn, and where it keeps it.

    Attributes:
        files: where the curves of each engine are kept; an engine without one is not measured.
        prepares: whether to compile the row counts of sizes that are asked for often, which takes memory.
    """

    files: Mapping[EngineKey, Path] = field(default_factory=dict)
    prepares: bool = False


NOTHING = Learning()


class WarmUp:
    """Prepares row counts and sizes, and learns step times, in a thread of its own.

    Args:
        model: what is served; its engines have run once.
        ask: has the thread that runs the engines do something, soon.
        quiet: says, in that thread, when to measure.
        asked: the sizes that requests ask for.
        on_curve: hears in that thread of each curve, those that were kept from earlier first.
    """

    def __init__(self, model: Model, ask: Ask, quiet: Quiet, asked: AskedSizes, on_curve: OnCurve) -> None:
        self._model = model
        self._ask = ask
        self._quiet = quiet
        self._asked = asked
        self._on_curve = on_curve
        self._own = own_size(model.manifest)
        self._learning = NOTHING
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mezzotint-{model.name}-warm-up")

    def start(self, learning: Learning) -> None:
        """Begin, once."""
        self._learning = learning
        self._thread.start()

    def stop(self) -> None:
        """Have it stop soon."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until it has stopped: a thread inside a runtime's compiler must not outlive the interpreter."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        self._model.warm_up_rest(self._stopping.is_set)
        if self._learning.files:
            self._recall()
            self._rounds()

    def _recall(self) -> None:
        for key, file in self._learning.files.items():
            for size, rounds in read_rounds(file).items():
                self._tell(key, size, curve_of(rounds))

    def _rounds(self) -> None:
        """Measure everything again and again, and what is new at once; ends where a call fails."""
        known: set[Size] = set()
        again, num_rounds = 0.0, 0  # when all is measured once more
        while not self._stopping.is_set():
            sizes = [self._own, *self._asked.often()]
            is_due = time.monotonic() >= again
            spent = 0.0
            for size in sizes if is_due else [size for size in sizes if size not in known]:
                ms = self._measure(size, prepare=size in sizes[1 : 1 + _MAX_PREPARED_SIZES])
                if ms is None:
                    return
                spent += ms / 1e3
                known.add(size)
            if is_due:
                again = time.monotonic() + pause_seconds(num_rounds, spent)
                num_rounds += 1
                logger.debug("model %s: this host's step times were measured, round %d", self._model.name, num_rounds)
            self._stopping.wait(_LOOK_SECONDS)

    def _measure(self, size: Size, *, prepare: bool) -> float | None:
        """Measure a round of every engine at one size; returns its milliseconds, and None where it is to end."""
        spent = 0.0
        for key, file in self._learning.files.items():
            engine = self._model.engines[key]
            of_engine = size_of_engine(engine.spec, size)
            if size != self._own and not self._model.has_calls(key, size):
                continue
            if size != self._own and of_engine == size_of_engine(engine.spec, self._own):
                continue
            lengths = axis_lengths(engine.spec, of_engine, self._own)
            calls = [distinct_rows(engine.spec, rows, lengths) for rows in engine.row_counts]
            if prepare and self._learning.prepares and not self._prepare(engine, calls):
                return None
            if isinstance(engine, KnowsReady) and not engine.is_ready(calls[0]):
                continue  # its shapes made room for others: a call would wait for the compiler
            rounds = {}
            for rows, inputs in zip(engine.row_counts, calls, strict=True):
                times = list(self._times(engine, inputs))
                if len(times) < _CALLS:
                    return None
                rounds[rows] = [min(times)]
                spent += sum(times)
            self._tell(key, of_engine, add_rounds(file, of_engine, rounds))
        return spent

    def _prepare(self, engine: Engine, calls: Sequence[Inputs]) -> bool:
        """Have calls of a size compiled, the largest first; returns whether that could be."""
        try:
            for inputs in reversed(calls):
                if not self._stopping.is_set():
                    engine.prepare(inputs)
        except EngineFailed as error:
            logger.warning("model %s: a size could not be prepared: %s", self._model.name, error)
            return False
        return True

    def _tell(self, key: EngineKey, size: Size, curve: Curve) -> None:
        self._ask(partial(self._on_curve, key, size, curve))

    def _times(self, engine: Engine, inputs: Inputs) -> Iterator[float]:
        """Yield the milliseconds of calls, fewer than ``_CALLS`` where it is stopped or one fails."""
        for _ in range(_CALLS):
            ms = _when_quiet(partial(call_ms, engine, inputs), self._ask, self._quiet, self._stopping)
            if ms is None:
                return
            yield ms


def pause_seconds(num_rounds: int, spent_seconds: float) -> float:
    """Return how long to wait after a round of measuring: longer each time, and a hundred times what it took."""
    usual = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(num_rounds, 16), _LONGEST_PAUSE_SECONDS)
    return max(usual, _SHARE * spent_seconds)


def _when_quiet(piece: Callable[[], float], ask: Ask, quiet: Quiet, stopping: threading.Event) -> float | None:
    """Return what ``piece`` gave in the engines' thread; None where it was stopped or failed."""
    while not stopping.is_set():
        future: Future[float | None] = Future()
        ask(partial(_answer, future, piece, quiet))
        while not future.done() and not stopping.is_set():
            time.sleep(_AGAIN_SECONDS / 10)
        if not future.done():
            return None
        if (found := future.result()) is not None:
            return found if found > 0 else None
        stopping.wait(_AGAIN_SECONDS)
    return None


def _answer(future: "Future[float | None]", piece: Callable[[], float], quiet: Quiet) -> None:
    try:
        future.set_result(quiet.call(piece))
    except Exception:
        logger.exception("a call that measures failed; step times stay as they are known")
        future.set_result(0.0)
