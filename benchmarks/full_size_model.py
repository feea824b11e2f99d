"""Writes the full-size Stable Diffusion 1.5 architecture with random weights: its speed is the real model's.

    python -m benchmarks.full_size_model FOLDER

Takes about 2 GB of disk (float16) and 7 GB of memory. Pictures of it mean nothing.
"""

import argparse
from pathlib import Path

import diffusers
import torch
import transformers

from mezzotint.compile.diffusers_folder import load_scheduler, load_tokenizer, read_index, read_json
from mezzotint.compile.single_file import DATA


def write_full_sd15(path: Path) -> Path:
    """Write the diffusers folder to ``path``, the same weights every time, and return it."""
    config = DATA / "sd15"
    torch.manual_seed(0)
    text_config = transformers.CLIPTextConfig(**read_json(config / "text_encoder" / "config.json"))
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_config(read_json(config / "vae" / "config.json")),
        text_encoder=transformers.CLIPTextModel(text_config),
        tokenizer=load_tokenizer(DATA / "clip_tokenizer", read_json(config / "tokenizer" / "tokenizer_config.json")),
        unet=diffusers.UNet2DConditionModel.from_config(read_json(config / "unet" / "config.json")),
        scheduler=load_scheduler(config / "scheduler", read_index(config).scheduler_class),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        module.half()
    pipeline.save_pretrained(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    print(write_full_sd15(parser.parse_args().folder))


if __name__ == "__main__":
    main()
