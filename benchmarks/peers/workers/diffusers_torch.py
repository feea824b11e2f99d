"""diffusers on torch: eager, in another memory format or type, or compiled by torch."""

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.peers.workers.diffusers_pipeline import painter, time_stages, use_ddim
from benchmarks.peers.workers.protocol import Clock, Job, Paint, serve


def load(job: Job, clock: Clock) -> Paint:
    """Load the checkpoint. Settings: ``dtype``, ``channels_last``, ``compile``."""
    dtype = getattr(torch, job.settings.get("dtype", "float32"))
    pipeline = StableDiffusionPipeline.from_pretrained(job.model, torch_dtype=dtype, safety_checker=None)
    use_ddim(pipeline)
    if job.settings.get("channels_last"):
        for part in (pipeline.unet, pipeline.vae):
            part.to(memory_format=torch.channels_last)
    if job.settings.get("compile"):
        pipeline.unet.forward = torch.compile(pipeline.unet.forward)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    time_stages(pipeline, clock, unet="forward", decoder=pipeline.vae, decode="decode")
    return painter(pipeline, job)


if __name__ == "__main__":
    serve(load)
