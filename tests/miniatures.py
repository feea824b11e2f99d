"""Tiny models with random weights, shaped like Stable Diffusion 1.5 and 2.1 and written as diffusers folders.

The same call writes the same weights. They draw nothing, but every layer of the real models is there once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch
import transformers
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

from mezzotint.compile.single_file import DATA

GUIDANCE_WIDTH = 16
"""Of the distilled miniature's guidance, which its UNet takes as an input."""

_WIDTH = 32


def write_sd15_miniature(path: Path) -> Path:
    """Write an SD-1.5-shaped folder (epsilon, PNDM, CLIP's vocabulary, 77 tokens, VAE factor 8) and return it."""
    return _write(path, DATA / "sd15", seed=15, num_heads=8)


def write_distilled_miniature(path: Path) -> Path:
    """Write an SD-1.5-shaped folder of a latent consistency model: the UNet takes guidance, the scheduler is LCM's."""
    _write(path, DATA / "sd15", seed=16, num_heads=8, guidance_width=GUIDANCE_WIDTH)
    config = path / "scheduler" / "scheduler_config.json"
    diffusers.LCMScheduler.from_config(_read(config)).save_pretrained(config.parent)
    index = path / "model_index.json"
    index.write_text(json.dumps({**_read(index), "scheduler": ["diffusers", "LCMScheduler"]}))
    return path


def write_inpainting_miniature(path: Path) -> Path:
    """Write an SD-1.5-shaped folder whose UNet was made to inpaint: it takes a mask and what that leaves."""
    return _write(path, DATA / "sd15", seed=17, num_heads=8, in_channels=9)


def write_sd21_miniature(path: Path) -> Path:
    """Write an SD-2.1-shaped folder (v-prediction, DDIM, linear projections, heads per level, gelu) and return it."""
    return _write(path, DATA / "sd21", seed=21, num_heads=[2, 4, 8, 8])


def write_tiny_decoder(path: Path, *, num_levels: int) -> Path:
    """Write an AutoencoderTiny of 4 latent channels and 2 ** (num_levels − 1) pixels a latent pixel."""
    torch.manual_seed(3)
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(16,) * num_levels,
        decoder_block_out_channels=(16,) * num_levels,
        num_encoder_blocks=(1,) * num_levels,
        num_decoder_blocks=(1,) * num_levels,
    )
    _widen(tiny.decoder.layers[-1], 3.0)
    tiny.save_pretrained(path)
    return path


def embeddings(module: Any, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """What a safety checker's vision tower makes of pictures, each of length 1, with transformers' preprocessing."""
    side = module.config.vision_config.image_size
    processor = transformers.CLIPImageProcessorPil(size=side, crop_size=side)
    with torch.no_grad():
        pixels = processor(list(pictures), return_tensors="pt").pixel_values
        found = module.visual_projection(module.vision_model(pixels)[1])
        return torch.nn.functional.normalize(found).numpy()


def add_safety_checker(folder: Path, pictures: Sequence[npt.NDArray[np.uint8]]) -> Any:
    """Give a diffusers folder a safety checker and return it, diffusers' own module.

    Of ``pictures`` it flags the first, and the second only because a special concept makes it stricter. The third is as
    close to a concept as the second, and passes, as do all others.
    """
    torch.manual_seed(2)
    config = transformers.CLIPConfig(
        vision_config={
            **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4},
            **{"image_size": 32, "patch_size": 8, "initializer_factor": 8.0},
        },
        projection_dim=16,
    )
    module = StableDiffusionSafetyChecker(config).eval()
    embeds = embeddings(module, pictures)
    concepts = embeds - embeds.mean(axis=0)
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    cosines = (embeds * concepts).sum(axis=1)
    margins = {"concept_embeds": [0.02, -0.005, -0.005], "special_care_embeds": [-0.5, 0.02, -0.5]}
    for name, over in margins.items():
        weights = getattr(module, name)
        weights.data[:] = torch.from_numpy(-embeds.mean(axis=0))  # far from every picture
        weights.data[:3] = torch.from_numpy(concepts[:3])
        getattr(module, f"{name}_weights").data[:3] = torch.from_numpy(cosines[:3] - np.float32(over))
    module.save_pretrained(folder / "safety_checker")
    transformers.CLIPImageProcessorPil(size=32, crop_size=32).save_pretrained(folder / "feature_extractor")
    index = folder / "model_index.json"
    said = _read(index) | {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    index.write_text(json.dumps(said), encoding="utf-8")
    return module


def _write(
    path: Path,
    config: Path,
    *,
    seed: int,
    num_heads: int | list[int],
    guidance_width: int | None = None,
    in_channels: int = 4,
) -> Path:
    torch.manual_seed(seed)
    text_encoder = _text_encoder(config)
    unet_model = diffusers.UNet2DConditionModel.from_config(
        {
            **_read(config / "unet" / "config.json"),
            "block_out_channels": [32, 64, 64, 64],
            "cross_attention_dim": _WIDTH,
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "sample_size": 16,
            # The field is named after a dimension and holds numbers of heads.
            "attention_head_dim": num_heads,
            "time_cond_proj_dim": guidance_width,
            "in_channels": in_channels,
        }
    )
    vae = _vae(config)
    _widen(unet_model.conv_out, 3.0)
    _widen(vae.decoder.conv_out, 3.0)
    settings = _read(config / "tokenizer" / "tokenizer_config.json")
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(DATA / "clip_tokenizer", **settings)
    scheduler_class = getattr(diffusers, _read(config / "model_index.json")["scheduler"][1])
    diffusers.StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet_model,
        scheduler=scheduler_class.from_pretrained(config / "scheduler"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(path)
    return path


def _text_encoder(config: Path) -> Any:
    small = {
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "projection_dim": _WIDTH,
        # CLIP's own 0.02 is meant for a width of 768; here every prompt would look the same.
        "initializer_factor": 8.0,
    }
    full = _read(config / "text_encoder" / "config.json")
    return transformers.CLIPTextModel(transformers.CLIPTextConfig(**full | small))


def _vae(config: Path) -> Any:
    small = {"block_out_channels": [16, 16, 32, 32], "layers_per_block": 1, "norm_num_groups": 8, "sample_size": 64}
    return diffusers.AutoencoderKL.from_config(_read(config / "vae" / "config.json") | small)


def _widen(layer: torch.nn.Conv2d, factor: float) -> None:
    with torch.no_grad():
        layer.weight.mul_(factor)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
