"""optimum-intel: diffusers' pipeline with OpenVINO in the place of each model."""

from optimum.intel import OVStableDiffusionPipeline

from benchmarks.peers.workers.diffusers_pipeline import painter, time_stages, use_ddim
from benchmarks.peers.workers.protocol import Clock, Job, Paint, serve


def load(job: Job, clock: Clock) -> Paint:
    """Load an export. Settings: ``properties`` of the device, ``static`` shapes."""
    pipeline = OVStableDiffusionPipeline.from_pretrained(
        job.model, compile=False, ov_config=dict(job.settings.get("properties", {})), safety_checker=None
    )
    use_ddim(pipeline)
    if job.settings.get("static"):
        pipeline.reshape(batch_size=1, height=job.height, width=job.width, num_images_per_prompt=1)
    pipeline.compile()
    time_stages(pipeline, clock, unet="forward", decoder=pipeline.vae, decode="decode")
    return painter(pipeline, job)


if __name__ == "__main__":
    serve(load)
