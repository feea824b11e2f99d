"""What only the machine tells of an engine: which row counts agree bit for bit, how long calls take, what is fastest.

Timings are medians of interleaved calls with warm-up; they are ratios of one run, since a machine drifts.
"""

import os
import platform
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.compile.verify import load_one
from mezzotint.engines import backends
from mezzotint.engines.backend import Engine
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.device import to_host
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.rows import doublings
from mezzotint.engines.timing import Inputs, call_times, distinct_rows


def host() -> str:
    """Return the machine that is measured: the CPU's name and the cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def device_name(backend: str, device: str) -> str:
    """Return what a device calls itself; "" for a CPU, whose name ``host`` has, and for one that does not say."""
    if "cpu" in (device or "CPU").lower():
        return ""
    try:
        if backend == "openvino":
            import openvino as ov

            return str(ov.Core().get_property(device, "FULL_DEVICE_NAME"))
        import torch

        return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    except RuntimeError:  # there is none of that name, as the backend says when it loads an engine
        return ""


def backend_digest(name: str) -> str:
    """Return what changes when our code does that runs engines on a backend."""
    files = sorted(Path(backends.__file__).parent.glob(f"{name}*.py"))
    return "".join(file_digest(file)[:16] for file in files)


def rows_and_times(folder: Path, entry: EngineEntry, device: str) -> tuple[list[list[int]], dict[int, float]]:
    """Return (row counts grouped by bit-equal rows, milliseconds of a call by row count), one engine at a time.

    A count joins a class if each of its rows, in every position that the doublings give, equals the class's.
    """
    most = entry.axes["rows"].max
    inputs = distinct_rows(entry, most)
    classes: list[tuple[list[npt.NDArray[Any]], list[int]]] = []
    step_ms: dict[int, float] = {}
    for count in doublings(most):
        engine = load_one(folder, entry, device, (count,))
        rows = _outputs(engine, inputs)
        turned = _outputs(engine, {name: np.roll(array, 1, axis=0) for name, array in inputs.items()})
        steady = _equal([np.roll(array, 1, axis=0) for array in rows], turned)
        same = next((members for known, members in classes if steady and _equal(known, rows)), None)
        if same is not None:
            same.append(count)
        elif steady or count == 1:
            classes.append((rows, [count]))
        first = {name: array[:count] for name, array in inputs.items()}
        step_ms[count] = statistics.median(call_times({"": engine}, first)[""])
        engine.close()
    return [members for _, members in classes], {count: round(ms, 3) for count, ms in step_ms.items()}


def call_ms(folder: Path, entry: EngineEntry, device: str, num_rows: int) -> float:
    """Return the median milliseconds of a call of ``num_rows``."""
    engine = load_one(folder, entry, device, (num_rows,))
    try:
        return round(statistics.median(call_times({"": engine}, distinct_rows(entry, num_rows))[""]), 3)
    finally:
        engine.close()


def times_in_pairs(engines: Mapping[str, Engine], inputs: Inputs, baseline: str) -> dict[str, tuple[float, float]]:
    """Time engines in turns; returns each one's (median milliseconds, median of its ratio to ``baseline``)."""
    times = call_times(engines, inputs)
    return {
        name: (
            statistics.median(own),
            statistics.median(a / b for a, b in zip(own, times[baseline], strict=True)),
        )
        for name, own in times.items()
    }


def _outputs(engine: Engine, inputs: Inputs) -> list[npt.NDArray[Any]]:
    outputs = engine.run(inputs)
    return [to_host(outputs[tensor.name]) for tensor in engine.spec.outputs]


def _equal(some: list[npt.NDArray[Any]], others: list[npt.NDArray[Any]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))
