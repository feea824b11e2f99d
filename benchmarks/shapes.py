"""What does a variant cost in time and memory? The UNet compiled for fixed shapes, for bounded rows, and for any shape.

    python -m benchmarks.shapes build/emoji-fp32 build/sd15-int8 --name all

Each variant runs in processes of its own, in turns: compile, warm up, give back what was mapped, call. Bytes are what
the process gained, with the weights file's pages that calls read again; the outputs' digest says which variants agree.
"""

import argparse
import hashlib
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov

from benchmarks.processes import run_python
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import EngineEntry, read_manifest
from mezzotint.engines.memory import release_mapped, resident_bytes, trim_heap

ROWS = (1, 2)
VARIANTS = {"1 row": (1,), "2 rows": (2,), "1..2 rows": ROWS, "any shape": ROWS}
"""The variants by name, and the rows that each is called with."""

_CONFIG = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
    "NUM_STREAMS": 1,
}


def shape_of(entry: EngineEntry, axes: tuple[int | str, ...], variant: str) -> ov.PartialShape:
    """Return the shape of one input in a variant."""
    rows = {"1 row": ov.Dimension(1), "2 rows": ov.Dimension(2), "1..2 rows": ov.Dimension(*ROWS)}
    if variant == "any shape":
        return ov.PartialShape([ov.Dimension(-1 if isinstance(axis, str) else axis) for axis in axes])
    rest = [ov.Dimension(entry.axes[axis].opt if isinstance(axis, str) else axis) for axis in axes[1:]]
    return ov.PartialShape([rows[variant], *rest])


def arrays(entry: EngineEntry, rows: int) -> list[npt.NDArray[np.float32]]:
    """Return random inputs; the first rows are the same for every number of rows."""
    rng = np.random.default_rng(0)
    most = [[max(ROWS), *(entry.axes[a].opt if isinstance(a, str) else a for a in t.axes[1:])] for t in entry.inputs]
    return [rng.standard_normal(shape, dtype=np.float32)[:rows] for shape in most]


def measure(bundle: Path, variant: str, num_calls: int) -> dict[str, Any]:
    """Compile one variant in this process; returns seconds, bytes, and milliseconds and digest by rows."""
    entry = read_manifest(bundle).engine(Component.UNET)
    path = bundle / next(iter(entry.files))
    core = ov.Core()
    before = resident_bytes()
    begun = time.perf_counter()
    model = core.read_model(path)
    model.reshape({i: shape_of(entry, tensor.axes, variant) for i, tensor in enumerate(entry.inputs)})
    config = _CONFIG | {"INFERENCE_PRECISION_HINT": "bf16" if "bf16" in entry.precision else "f32"}
    request = core.compile_model(model, "CPU", config).create_infer_request()
    found: dict[str, Any] = {"compile_s": time.perf_counter() - begun, "ms": {}, "digest": {}}
    del model
    inputs = {rows: arrays(entry, rows) for rows in VARIANTS[variant]}
    for given in inputs.values():
        request.infer(given)
    trim_heap()
    release_mapped(path.with_suffix(".bin"))
    for rows, given in inputs.items():
        times = []
        for _ in range(num_calls):
            begun = time.perf_counter()
            request.infer(given, share_inputs=True)
            times.append((time.perf_counter() - begun) * 1e3)
        found["ms"][rows] = statistics.median(times)
        found["digest"][rows] = hashlib.sha256(request.get_output_tensor(0).data.tobytes()).hexdigest()[:12]
    return found | {"bytes": resident_bytes() - before}


def in_own_process(bundle: Path, variant: str, num_calls: int) -> dict[str, Any]:
    """Run ``measure`` in a fresh process."""
    given = ("-m", "benchmarks.shapes", bundle, "--one", variant, "--calls", str(num_calls))
    found: dict[str, Any] = json.loads(run_python(*given))
    return found


def row_of(bundle: Path, variant: str, turns: list[dict[str, Any]], fixed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return one row of the table; ``fixed`` holds the last turn of the variants of fixed shapes."""
    ms = {rows: statistics.median(turn["ms"][str(rows)] for turn in turns) for rows in VARIANTS[variant]}
    same = [fixed[_fixed(rows)]["digest"][str(rows)] == turns[-1]["digest"][str(rows)] for rows in VARIANTS[variant]]
    return {
        "bundle": bundle.name,
        "UNet for": variant,
        "ms, 1 row": round(ms[1], 1) if 1 in ms else "",
        "ms, 2 rows": round(ms[2], 1) if 2 in ms else "",
        "resident MiB": round(statistics.median(turn["bytes"] for turn in turns) / 2**20),
        "compile s": round(statistics.median(turn["compile_s"] for turn in turns), 2),
        "bits of the fixed shape": "yes" if all(same) else "no",
        "n": len(turns),
    }


def _fixed(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows} rows"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=3, help="processes of each variant")
    parser.add_argument("--calls", type=int, default=7, help="calls of each row count in a process")
    parser.add_argument("--name", default="all", help="what the results' files are called after")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.bundles[0], options.one, options.calls)))
        return
    from benchmarks.harness import publish  # loads the compiler, which the measured processes must not

    rows, details = [], {}
    for bundle in options.bundles:
        turns: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
        for _ in range(options.turns):
            for variant, found in turns.items():
                found.append(in_own_process(bundle, variant, options.calls))
        fixed = {variant: found[-1] for variant, found in turns.items()}
        rows += [row_of(bundle, variant, found, fixed) for variant, found in turns.items()]
        details[bundle.name] = turns
    publish(f"shapes-{options.name}", "What does a variant cost in time and memory?", rows, details)


if __name__ == "__main__":
    main()
