"""What all benchmark scripts share: the machine's name, percentiles, and one Markdown table with its JSON."""

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mezzotint.compile.measure import host

RESULTS = Path(__file__).parent / "results"
_VERSIONS = ("mezzotint", "openvino", "onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "numpy", "grpcio")


def machine() -> dict[str, Any]:
    """Return the hardware and the versions that a result depends on."""
    versions = {}
    for name in _VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "host": host(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
    }


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return n, p50, p95 and p99."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99]).tolist()
    return {"n": len(values), "p50": round(p50, 4), "p95": round(p95, 4), "p99": round(p99, 4)}


class CpuShare:
    """Measures CPU time over wall time of this process while it is entered: near the core count, or not alone."""

    def __enter__(self) -> "CpuShare":
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        self.value = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self.value = round((time.process_time() - self._cpu) / (time.perf_counter() - self._wall), 2)


def interleaved(calls: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Return milliseconds of each call, taken in turns after a warm-up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warmup + rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if turn >= warmup:
                times[name].append((time.perf_counter() - begun) * 1e3)
    return times


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table whose columns are the keys of the first row."""
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(str(row.get(column, "")) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def publish(name: str, question: str, rows: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> None:
    """Write ``results/NAME.json`` and ``results/NAME.md``, and print the table."""
    RESULTS.mkdir(exist_ok=True)
    found = machine()
    content = {"question": question, "machine": found, "rows": list(rows), "details": details}
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    page = f"# {question}\n\n{found['host']}, {found['memory_gib']} GiB; {versions}.\n\n{table(rows)}\n"
    (RESULTS / f"{name}.md").write_text(page, encoding="utf-8")
    print(page)
