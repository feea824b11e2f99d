"""How long an engine's calls take: inputs to call it with, and the calls' milliseconds. Imports the contract alone."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.backend import Engine
from mezzotint.engines.manifest import INNER, STATISTICS, EngineEntry

_MIN_CALLS = 3
_MAX_CALLS = 15
_TIME_BUDGET_S = 2.0

Inputs = dict[str, npt.NDArray[Any]]


def distinct_rows(entry: EngineEntry, num_rows: int, lengths: Mapping[str, int] = MappingProxyType({})) -> Inputs:
    """Return inputs whose rows all differ; axes that ``lengths`` does not name are as the engine was tuned."""
    rng = np.random.default_rng(0)
    inputs: Inputs = {}
    shapes = entry.input_shapes(num_rows, lengths)
    for tensor in entry.inputs:
        shape = shapes[tensor.name]
        inputs[tensor.name] = rng.standard_normal(shape, dtype=np.float32)
        if tensor.role == "timestep":
            inputs[tensor.name] = rng.uniform(0, 999, shape).astype(np.float32)
        if tensor.role in (STATISTICS, INNER):  # random ones would let values grow from norm to norm beyond all bounds
            inputs[tensor.name] = np.zeros(shape, dtype=np.float32)
    return inputs


def call_times(engines: Mapping[str, Engine], inputs: Inputs) -> dict[str, list[float]]:
    """Return milliseconds of each engine's calls, taken in turns after one warm-up: 3 to 15 in some two seconds."""
    for engine in engines.values():
        engine.run(inputs)
    times: dict[str, list[float]] = {name: [] for name in engines}
    started = time.perf_counter()
    while not _enough(next(iter(times.values())), time.perf_counter() - started):
        for name, engine in engines.items():
            times[name].append(call_ms(engine, inputs))
    return times


def call_ms(engine: Engine, inputs: Inputs) -> float:
    """Return the milliseconds of one call, until its device has finished."""
    begun = time.perf_counter()
    for output in engine.run(inputs).values():
        device.wait(output)
    return (time.perf_counter() - begun) * 1e3


def _enough(done: Sequence[float], seconds: float) -> bool:
    return len(done) >= _MAX_CALLS or (len(done) >= _MIN_CALLS and seconds > _TIME_BUDGET_S)
