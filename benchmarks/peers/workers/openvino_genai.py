"""openvino.genai: the whole pipeline in C++, on optimum-intel's exports."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
import openvino_genai

from benchmarks.peers.workers.protocol import DECODE, TEXT, UNET, Clock, Job, Paint, serve


class GivenNoise(openvino_genai.Generator):
    """Gives the noise of a file, so that the picture is the one that the others paint."""

    def __init__(self, noise: npt.NDArray[np.float32]) -> None:
        openvino_genai.Generator.__init__(self)
        self._noise = noise
        self._values = iter(noise.reshape(-1).tolist())

    def next(self) -> float:
        """Return one normal."""
        return next(self._values)

    def randn_tensor(self, shape: Any) -> openvino.Tensor:
        """Return as many as the file holds."""
        return openvino.Tensor(np.ascontiguousarray(self._noise.reshape(tuple(shape))))


def load(job: Job, clock: Clock) -> Paint:
    """Load an export. Settings: ``properties`` of the device, ``static`` shapes."""
    pipeline = openvino_genai.Text2ImagePipeline(job.model)
    if job.settings.get("static"):
        pipeline.reshape(1, job.height, job.width, job.guidance)
    pipeline.compile("CPU", **job.settings.get("properties", {}))
    pipeline.set_scheduler(
        openvino_genai.Scheduler.from_config(
            Path(job.model) / "scheduler" / "scheduler_config.json", openvino_genai.Scheduler.Type.DDIM
        )
    )
    noise = np.load(job.noise)

    def paint(steps: int) -> npt.NDArray[np.uint8]:
        picture = pipeline.generate(
            job.prompt,
            negative_prompt=job.negative_prompt,
            height=job.height,
            width=job.width,
            num_inference_steps=steps,
            guidance_scale=job.guidance,
            generator=GivenNoise(noise),
        )
        metrics = pipeline.get_performance_metrics()
        clock.note(TEXT, sum(metrics.get_text_encoder_infer_duration().values()) / 1e3)
        for microseconds in metrics.raw_metrics.unet_inference_durations:
            clock.note(UNET, microseconds / 1e6)
        clock.note(DECODE, metrics.get_vae_decoder_infer_duration() / 1e3)
        return np.array(picture.data[0])

    return paint


if __name__ == "__main__":
    serve(load)
