"""stable-diffusion.cpp through its Python binding."""

import ctypes
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import stable_diffusion_cpp

from benchmarks.peers.workers.protocol import DECODE, TEXT, UNET, Clock, Job, Paint, serve

_TAKEN = re.compile(r"(get_learned_condition|sampling|decode_first_stage) completed, taking ([\d.]+)s")
_STAGES = {"get_learned_condition": TEXT, "sampling": UNET, "decode_first_stage": DECODE}


def load(job: Job, clock: Clock) -> Paint:
    """Load the checkpoint. Settings are the binding's own; ``generate`` holds those of a picture."""
    settings = {key: value for key, value in job.settings.items() if key != "generate"}
    # the binding's own default is half of the cores; torch's stream of noise is its ``cpu`` generator
    model = stable_diffusion_cpp.StableDiffusion(
        model_path=job.model, n_threads=job.threads, rng_type="cpu", sampler_rng_type="cpu", verbose=False, **settings
    )

    @stable_diffusion_cpp.sd_log_callback
    def on_log(level: int, text: bytes, data: Any) -> None:
        if found := _TAKEN.search(text.decode("utf-8", "replace")):
            clock.note(_STAGES[found[1]], float(found[2]))

    stable_diffusion_cpp.sd_set_log_callback(on_log, ctypes.c_void_p(0))

    def paint(steps: int) -> npt.NDArray[np.uint8]:
        [picture] = model.generate_image(
            prompt=job.prompt,
            negative_prompt=job.negative_prompt,
            width=job.width,
            height=job.height,
            cfg_scale=job.guidance,
            sample_method="ddim_trailing",
            sample_steps=steps,
            seed=job.seed,
            **job.settings.get("generate", {}),
        )
        # the log's callback has to live as long as the library may call it
        assert on_log is not None
        return np.asarray(picture.convert("RGB"))

    return paint


if __name__ == "__main__":
    serve(load)
