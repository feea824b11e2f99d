"""Parts that the workers built on diffusers' pipelines share."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DDIMScheduler

from benchmarks.peers.workers.protocol import DECODE, TEXT, UNET, Clock, Job, Paint


def time_stages(pipeline: Any, clock: Clock, *, unet: str, decoder: Any, decode: str) -> None:
    """Note what text encoder, UNet and decoder take; ``unet`` and ``decode`` name the methods that are called."""
    for part, method, stage in (
        (pipeline.text_encoder, "forward", TEXT),
        (pipeline.unet, unet, UNET),
        (decoder, decode, DECODE),
    ):
        setattr(part, method, clock.timed(stage, getattr(part, method)))


def use_ddim(pipeline: Any) -> None:
    """Take DDIM with the checkpoint's own schedule."""
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)


def painter(pipeline: Any, job: Job) -> Paint:
    """Return what paints the job's picture."""

    def paint(steps: int) -> npt.NDArray[np.uint8]:
        picture = pipeline(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            height=job.height,
            width=job.width,
            num_inference_steps=steps,
            guidance_scale=job.guidance,
            generator=torch.Generator("cpu").manual_seed(job.seed),
            output_type="pil",
        ).images[0]
        return np.asarray(picture)

    return paint
