"""Pictures in the latents of a VAE, for nearest pictures. Imports torch."""

from typing import Any

import numpy as np
import torch

from mezzotint.trainer.evaluation.gallery import Encode
from mezzotint.trainer.evaluation.pictures import Floats32
from mezzotint.trainer.evaluation.statistics import Pixels

_AT_ONCE = 32  # pictures in one pass, to bound memory


def vae_encoder(vae: Any) -> Encode:
    """Return what gives the posterior's mean of uint8 [N, H, W, 3] pictures, float32 [N, C·h·w]."""

    @torch.no_grad()
    def encode(images: Pixels) -> Floats32:
        pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1
        parts = [vae.encode(pixels[i : i + _AT_ONCE]).latent_dist.mean for i in range(0, len(pixels), _AT_ONCE)]
        means: Floats32 = torch.cat(parts).flatten(1).numpy()
        return means

    return encode
