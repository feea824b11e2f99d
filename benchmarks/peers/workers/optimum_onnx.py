"""ONNX Runtime through optimum: diffusers' pipeline with a session in the place of each model."""

import onnxruntime
from optimum.onnxruntime import ORTStableDiffusionPipeline

from benchmarks.peers.workers.diffusers_pipeline import painter, time_stages, use_ddim
from benchmarks.peers.workers.protocol import Clock, Job, Paint, serve


def load(job: Job, clock: Clock) -> Paint:
    """Load an export. Settings: ``tuned``."""
    options = onnxruntime.SessionOptions()
    if job.settings.get("tuned"):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    pipeline = ORTStableDiffusionPipeline.from_pretrained(
        job.model, provider="CPUExecutionProvider", session_options=options
    )
    use_ddim(pipeline)
    time_stages(pipeline, clock, unet="forward", decoder=pipeline.vae, decode="decode")
    return painter(pipeline, job)


if __name__ == "__main__":
    serve(load)
