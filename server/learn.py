"""What a server does beside its first requests: it prepares the other row counts, and learns this host's step times.

Those are measured between requests, by the loop's own thread, and kept for the next start.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeAlias

from mezzotint.engines.backend import Engine
from mezzotint.engines.curves import write_curve
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.timing import distinct_rows

logger = logging.getLogger(__name__)

_CALLS = 3
_AGAIN_SECONDS = 0.2

Piece: TypeAlias = Callable[[], float]
Ask: TypeAlias = Callable[[Callable[[], None]], None]


class WarmUp:
    """The thread that does so.

    Args:
        model: what is served; its engines have run once.
        ask: has the thread that runs the engines do something, soon.
        is_idle: whether that thread has no request's call to make; asked in that thread.
    """

    def __init__(self, model: Model, ask: Ask, is_idle: Callable[[], bool]) -> None:
        self._model = model
        self._ask = ask
        self._is_idle = is_idle
        self._files: Mapping[EngineKey, Path] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mezzotint-{model.name}-warm-up")

    def start(self, curve_files: Mapping[EngineKey, Path]) -> None:
        """Begin, once; step times are measured where these files do not hold them yet."""
        self._files = curve_files
        self._thread.start()

    def stop(self) -> None:
        """Have it stop soon."""
        self._stopping.set()

    def join(self) -> None:
        """Wait for that: a thread inside a runtime's compiler must not outlive the interpreter."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        stopped = self._stopping.is_set
        self._model.warm_up_rest(stopped)
        learn(self._model, self._files, self._ask, self._is_idle, stopped)


def learn(
    model: Model, files: Mapping[EngineKey, Path], ask: Ask, is_idle: Callable[[], bool], stopped: Callable[[], bool]
) -> None:
    """Measure the engines whose curves are not kept yet, at the row counts that they are prepared for.

    Each call is made where nobody waits for another, so that a request waits for one of them at most.

    Args:
        model: what is served.
        files: where the curve of each engine is kept.
        ask: has the thread that runs the engines do something, soon.
        is_idle: whether that thread has no request's call to make; asked in that thread.
        stopped: whether to give up.
    """
    for key, file in files.items():
        engine = model.engines[key]
        if file.exists():
            continue
        curve = {}
        for rows in engine.row_counts:
            times = [_when_idle(partial(_call_ms, engine, rows), ask, is_idle, stopped) for _ in range(_CALLS)]
            known = [ms for ms in times if ms is not None]
            if len(known) < _CALLS:
                return
            curve[rows] = min(known)
        write_curve(file, curve)
    logger.info("model %s: this host's step times are known", model.name)


def _when_idle(piece: Piece, ask: Ask, is_idle: Callable[[], bool], stopped: Callable[[], bool]) -> float | None:
    """Return what ``piece`` gave in the engines' thread; None where it was stopped or failed."""
    while not stopped():
        future: Future[float | None] = Future()
        ask(partial(_answer, future, piece, is_idle))
        while not future.done() and not stopped():
            time.sleep(_AGAIN_SECONDS / 10)
        if not future.done():
            return None
        if (found := future.result()) is not None:
            return found if found > 0 else None
        time.sleep(_AGAIN_SECONDS)
    return None


def _answer(future: "Future[float | None]", piece: Piece, is_idle: Callable[[], bool]) -> None:
    try:
        future.set_result(piece() if is_idle() else None)
    except Exception:
        logger.exception("a call that measures failed; step times stay those of the compiling machine")
        future.set_result(0.0)


def _call_ms(engine: Engine, rows: int) -> float:
    inputs = distinct_rows(engine.spec, rows)
    begun = time.perf_counter()
    engine.run(inputs)
    return (time.perf_counter() - begun) * 1e3
