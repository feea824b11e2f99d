"""The model that a run starts from, as its parts; where they were read from is the caller's business."""

from dataclasses import dataclass
from typing import Self

import diffusers
import transformers


@dataclass(frozen=True, slots=True, eq=False)
class Base:
    """A Stable Diffusion 1.x or 2.x model.

    Attributes:
        name: what people call it; it stands in the model card.
        digest: SHA-256 (hex) over weights and settings, as the compiler has it.
        text_encoder: float32, as are ``unet`` and ``vae``; training changes it and ``unet`` in place.
        tokenizer: pads and cuts prompts to its ``model_max_length``.
        scheduler: its config has the noise schedule and what the UNet predicts.
    """

    name: str
    digest: str
    text_encoder: transformers.CLIPTextModel
    unet: diffusers.UNet2DConditionModel
    vae: diffusers.AutoencoderKL
    tokenizer: transformers.CLIPTokenizerFast
    scheduler: diffusers.SchedulerMixin

    def __deepcopy__(self, memo: object) -> Self:
        """Return itself: a copy of a training module (Lightning's for an average) needs none of what is frozen."""
        return self
