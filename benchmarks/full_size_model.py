"""Writes the full-size Stable Diffusion 1.5 architecture with random weights: its speed is the real model's.

    python -m benchmarks.full_size_model FOLDER

Takes about 2 GB of disk (float16) and 7 GB of memory. Pictures of it show nothing, but a trajectory stays at the size
of a trained model's, so that two engines' pictures of it can be compared: see ``predict_the_sample``.
"""

import argparse
from pathlib import Path

import diffusers
import torch
import transformers

from mezzotint.compile.diffusers_folder import load_scheduler, load_tokenizer, read_index, read_json
from mezzotint.compile.single_file import DATA

_SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
_SMALL_UNET = {"block_out_channels": [32, 64, 64, 64], "cross_attention_dim": 32, "layers_per_block": 1}


def write_full_sd15(path: Path, *, only_vae: bool = False) -> Path:
    """Write the diffusers folder to ``path``, the same weights every time, and return it.

    With ``only_vae`` text encoder and UNet are small, for what only looks at a decode: nothing large is exported.
    """
    config = DATA / "sd15"
    text, unet = (_SMALL_TEXT, _SMALL_UNET) if only_vae else ({}, {})
    torch.manual_seed(0)
    text_config = transformers.CLIPTextConfig(**read_json(config / "text_encoder" / "config.json") | text)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL.from_config(read_json(config / "vae" / "config.json")),
        text_encoder=transformers.CLIPTextModel(text_config),
        tokenizer=load_tokenizer(DATA / "clip_tokenizer", read_json(config / "tokenizer" / "tokenizer_config.json")),
        unet=diffusers.UNet2DConditionModel.from_config(read_json(config / "unet" / "config.json") | unet),
        scheduler=load_scheduler(config / "scheduler", read_index(config).scheduler_class),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    if not only_vae:
        predict_the_sample(pipeline.unet)
    for module in (pipeline.vae, pipeline.text_encoder, pipeline.unet):
        module.half()
    pipeline.save_pretrained(path)
    return path


def write_tiny_decoder(path: Path) -> Path:
    """Write an AutoencoderTiny of TAESD's architecture, random weights too, to ``path`` and return it."""
    torch.manual_seed(0)
    diffusers.AutoencoderTiny().half().save_pretrained(path)
    return path


def predict_the_sample(unet: diffusers.UNet2DConditionModel) -> None:
    """Make a random UNet predict its input, at unit size, plus what it computes.

    Noise that is predicted at random lets DDIM's samples grow fifteenfold on their way, as no trained model does, and
    no int8 grid can hold first and last steps then. The input travels through the first skip connection, with both
    signs, since silu(x) - silu(-x) = x; the eight channels that carry it are left alone by all between.
    """
    num = unet.config.in_channels
    carried = range(2 * num)
    last = unet.up_blocks[-1]
    resnet, skipped = last.resnets[-1], last.resnets[-1].conv_shortcut.in_channels - unet.conv_in.out_channels
    layers = [unet.conv_in, resnet.conv_shortcut, resnet.conv2, last.attentions[-1].proj_out]
    with torch.no_grad():
        for layer in layers:
            layer.weight[: len(carried)] = 0
            layer.bias[: len(carried)] = 0
        unet.conv_out.bias.zero_()
        unet.conv_out.weight[:, : len(carried)] = 0
        for i in carried:
            sign, channel = 1 - 2 * (i // num), i % num
            unet.conv_in.weight[i, channel, 1, 1] = sign
            resnet.conv_shortcut.weight[i, skipped + i, 0, 0] = 1
            unet.conv_out.weight[channel, i, 1, 1] = sign


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiny-decoder", type=Path, help="write an AutoencoderTiny as large as TAESD there as well")
    parser.add_argument("--only-vae", action="store_true", help="have a small text encoder and UNet beside the VAE")
    options = parser.parse_args()
    print(write_full_sd15(options.folder, only_vae=options.only_vae))
    if options.tiny_decoder:
        print(write_tiny_decoder(options.tiny_decoder))


if __name__ == "__main__":
    main()
