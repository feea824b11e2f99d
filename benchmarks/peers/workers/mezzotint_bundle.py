"""Mezzotint's engines in this process, without the server: a bundle opened and one request after the other."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.peers.workers.protocol import DECODE, TEXT, UNET, Clock, Job, Paint, serve
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.generate import generate
from mezzotint.engines.image import Stage
from mezzotint.engines.request import Request


def load(job: Job, clock: Clock) -> Paint:
    """Open a bundle. Settings are fields of the request."""
    model = open_bundle(Path(job.model), LoadOptions(devices={}))
    model.warm_up()
    model.warm_up_rest()  # as a server does behind its first answer
    settings: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in job.settings.items()
    }

    def paint(steps: int) -> npt.NDArray[np.uint8]:
        request = Request(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            steps=steps,
            guidance=job.guidance,
            seed=job.seed,
            sampler="ddim",
            height=job.height,
            width=job.width,
            **settings,
        )
        [[image]] = generate(model, [request])
        clock.note(TEXT, image.stage_ms[Stage.ENCODE] / 1e3)
        clock.note(UNET, image.stage_ms[Stage.DENOISE] / 1e3)
        clock.note(DECODE, image.stage_ms[Stage.DECODE] / 1e3)
        assert image.pixels is not None  # every image of ``generate`` is done
        return image.pixels

    return paint


if __name__ == "__main__":
    serve(load)
