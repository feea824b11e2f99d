"""Class pictures painted by torch, where the base model's compiled engine is not to be had."""

from collections.abc import Sequence

import diffusers
import numpy as np
import numpy.typing as npt
import torch

from mezzotint.trainer.base import Base
from mezzotint.trainer.class_images import Painter


def torch_painter(base: Base, *, steps: int, guidance: float) -> Painter:
    """Return a painter of the base model's own size and sampler: diffusers' pipeline, where the modules are."""
    pipeline = diffusers.StableDiffusionPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=base.unet,
        scheduler=type(base.scheduler).from_config(base.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)

    def paint(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        made = pipeline(
            list(prompts),
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="np",
        ).images
        return [(picture * 255).round().astype(np.uint8) for picture in made]

    return paint
