"""A checkpoint into a bundle of TensorRT plans: the pipeline for ONNX, and then the plans."""

import tempfile
from dataclasses import replace
from pathlib import Path

from mezzotint.compile.folders import check_output
from mezzotint.compile.job import CompileJob, Report
from mezzotint.compile.pipeline import compile_checkpoint
from mezzotint.compile.tensorrt.finish import finish
from mezzotint.compile.tensorrt.plan import PlanOptions, check_target


def compile_plans(job: CompileJob, options: PlanOptions, tell: Report) -> Path:
    """Compile a checkpoint into verified ONNX and that into the bundle of plans ``job.output``; returns it.

    Raises what ``compile_checkpoint`` and ``finish`` raise.
    """
    check_target(options)
    check_output(job.output)
    job.cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="onnx-", dir=job.cache) as folder:
        onnx = compile_checkpoint(replace(job, output=Path(folder) / job.output.name), tell)
        return finish(onnx, job.output, options, job.cache, tell)
