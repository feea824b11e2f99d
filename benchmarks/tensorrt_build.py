"""What does building a full-size UNet's TensorRT plan take? Seconds, peak memory and bytes, without a GPU.

    python -m benchmarks.full_size_model build/sd15-full
    python -m benchmarks.tensorrt_build build/sd15-full --precision fp16

Each plan is built in a process of its own from the same rewritten export, which is kept for the next run. The plan is
built and weighed here, and not run.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import publish
from benchmarks.processes import memory_mib, run_python
from mezzotint.compile import export
from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.job import CompileJob
from mezzotint.compile.precision import derive
from mezzotint.compile.sizes import engine_axes, pixel_ranges
from mezzotint.compile.stages import Stages
from mezzotint.compile.targets import Target, rewritten
from mezzotint.compile.tensorrt.plan import PlanOptions, build_plan
from mezzotint.engines.bundle import cache_folder
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.tensorrt_flavour import find_flavour


def unet(checkpoint_folder: str, cache: Path, max_rows: int) -> Target:
    """Return the UNet's rewritten export."""
    stages = Stages(cache, lambda event: None)
    checkpoint = load_checkpoint(checkpoint_folder)
    part = export.part(checkpoint, Component.UNET)
    folder = export.exported(stages, Component.UNET, part)
    ranges = pixel_ranges(CompileJob(source=checkpoint_folder, output=cache, cache=cache), checkpoint)
    axes = engine_axes(checkpoint, ranges, max_rows, Component.UNET)
    return Target.whole(Component.UNET, rewritten(Component.UNET, folder, stages), part, axes)


def entry_of(target: Target, precision: Precision) -> EngineEntry:
    """Return what a manifest would say of the ONNX."""
    return EngineEntry(
        component=target.component,
        backend="onnxruntime",
        backend_version="",
        device="CPU",
        precision=precision,
        files={},
        inputs=target.inputs,
        outputs=target.outputs,
        axes=target.axes,
        row_classes=((1,),),
    )


def build_here(given: dict[str, Any]) -> dict[str, float]:
    """Build a plan in this process; returns seconds, peak resident MiB of it, and the plan's megabytes."""
    onnx, plan = Path(given["onnx"]), Path(given["onnx"]).with_suffix(".plan")
    entry = EngineEntry.model_validate_json(given["entry"])
    begun = time.perf_counter()
    build_plan(onnx, plan, entry, PlanOptions(given["capability"]), lambda done: None, onnx.parent)
    seconds = time.perf_counter() - begun
    peak = memory_mib(os.getpid())["peak"]
    return {"seconds": round(seconds, 1), "peak MiB": peak, "plan MB": round(plan.stat().st_size / 1e6, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a diffusers folder; its own size is built for")
    parser.add_argument("--precision", action="append", choices=["fp32", "fp16", "int8-weights"])
    parser.add_argument("--compute-capability", default="8.9")
    parser.add_argument("--max-rows", type=int, default=8)
    parser.add_argument("--cache", type=Path, default=cache_folder() / "compile")
    parser.add_argument("--name", default="sd15-size")
    options = parser.parse_args()
    if options.checkpoint == "-":
        json.dump(build_here(json.load(sys.stdin)), sys.stdout)
        return
    flavour, library = find_flavour()
    target = unet(options.checkpoint, options.cache, options.max_rows)
    work = options.cache / "tensorrt-build"
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in options.precision or ["fp16"]:
        onnx = work / f"unet-{name}.onnx"
        stats = derive(target.onnx, onnx, Precision(name), "tensorrt")
        entry = entry_of(target, Precision(name)).model_dump_json()
        given = json.dumps({"onnx": str(onnx), "entry": entry, "capability": options.compute_capability})
        found = json.loads(run_python("-m", "benchmarks.tensorrt_build", "-", stdin=given))
        rows.append({"precision": name, "ONNX MB": round(stats.target_bytes / 1e6, 1), **found})
    axes = {axis: length.model_dump() for axis, length in target.axes.items()}
    details = {"flavour": flavour, "version": library.__version__, "axes": axes}
    question = f"What does a full-size UNet's plan take to build? {flavour} {library.__version__}, "
    publish(
        f"tensorrt-build-{options.name}", f"{question}compute capability {options.compute_capability}", rows, details
    )


if __name__ == "__main__":
    main()
