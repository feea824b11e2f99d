"""Writes a model's weights under CompVis' names, as in the single files of Stable Diffusion 1.x and 2.x."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from mezzotint.engines.folders import whole_file
from mezzotint.trainer.base import Base
from mezzotint.trainer.output import to_dtype

State = dict[str, torch.Tensor]

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn": "attn",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def write_single_file(model: Base, file: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write text encoder, UNet and VAE as one ``.safetensors`` that A1111, ComfyUI and ``mezzotint compile`` read.

    It is there whole or not at all. Tokenizer and schedule are not in it: such files go with those of Stable
    Diffusion, or with ``mezzotint compile --config``. Raises TrainError if a weight is too large for ``dtype``.
    """
    state = compvis_state(model.text_encoder, model.unet, model.vae)
    converted = {key: to_dtype(key, value, dtype).contiguous() for key, value in state.items()}
    with whole_file(file) as unfinished:
        save_file(converted, unfinished, {"format": "pt"})


def compvis_state(text_encoder: Any, unet: Any, vae: Any) -> State:
    """Return all weights of the three modules under CompVis' names, each tensor with memory of its own.

    A text encoder with plain GELU is Stable Diffusion 2's, which goes under OpenCLIP's names.
    """
    text = _open_clip(text_encoder) if text_encoder.config.hidden_act == "gelu" else _clip(text_encoder)
    unet_names = _renamed(unet.state_dict(), lambda key: _unet_key(key, unet.config["layers_per_block"], unet))
    num_levels = len(vae.config["block_out_channels"])
    vae_names = _renamed(vae.state_dict(), lambda key: _vae_key(key, num_levels))
    # Here the autoencoder's attention is made of 1 × 1 convolutions.
    for key in [key for key in vae_names if "attn_1" in key and vae_names[key].ndim == 2]:
        vae_names[key] = vae_names[key][:, :, None, None]
    sections = {"model.diffusion_model.": unet_names, "first_stage_model.": vae_names, "cond_stage_model.": text}
    return {prefix + key: value.detach().clone() for prefix, part in sections.items() for key, value in part.items()}


def _renamed(state: Mapping[str, torch.Tensor], rename: Callable[[str], str]) -> State:
    return {rename(key): value for key, value in state.items()}


def _replace(key: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        key = key.replace(old, new)
    return key


def _unet_key(key: str, layers: int, unet: Any) -> str:
    head, _, rest = key.partition(".")
    if head not in ("down_blocks", "mid_block", "up_blocks"):
        return next(new + key.removeprefix(old) for old, new in _UNET_ENDS.items() if key.startswith(old + "."))
    if head == "mid_block":
        kind, number, tail = rest.split(".", 2)
        place = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
        return f"{place}.{_replace(tail, _RESNET) if kind == 'resnets' else tail}"
    level, kind, number, tail = rest.split(".", 3)
    first, side = (
        (1 + int(level) * (layers + 1), "input_blocks")
        if head == "down_blocks"
        else (int(level) * (layers + 1), "output_blocks")
    )
    match kind:
        case "resnets":
            return f"{side}.{first + int(number)}.0.{_replace(tail, _RESNET)}"
        case "attentions":
            return f"{side}.{first + int(number)}.1.{tail}"
        case "downsamplers":
            return f"{side}.{first + layers}.0.{tail.replace('conv', 'op')}"
        case _:
            behind = 2 if hasattr(unet.up_blocks[int(level)], "attentions") else 1
            return f"{side}.{first + layers}.{behind}.{tail}"


def _vae_key(key: str, num_levels: int) -> str:
    if "attentions.0" in key:
        key = _replace(key.replace("mid_block.attentions.0", "mid.attn_1"), _VAE_ATTENTION)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d)", r"down.\1", key)
    key = re.sub(r"up_blocks\.(\d)", lambda found: f"up.{num_levels - 1 - int(found[1])}", key)
    names = {"resnets": "block", "downsamplers.0": "downsample", "upsamplers.0": "upsample"}
    return _replace(key, {**names, "conv_shortcut": "nin_shortcut", "conv_norm_out": "norm_out"})


def _clip(text_encoder: Any) -> State:
    state = text_encoder.state_dict()
    return {f"transformer.text_model.{key.removeprefix('text_model.')}": value for key, value in state.items()}


def _open_clip(text_encoder: Any) -> State:
    state = {key.removeprefix("text_model."): value for key, value in text_encoder.state_dict().items()}
    names: State = {"model.logit_scale": torch.tensor(4.6)}
    for key, value in state.items():
        parts = re.fullmatch(r"(.*self_attn)\.q_proj\.(weight|bias)", key)
        if parts:
            joined = torch.cat([state[f"{parts[1]}.{letter}_proj.{parts[2]}"] for letter in "qkv"])
            names[f"model.{_replace(parts[1], _OPEN_CLIP)}.in_proj_{parts[2]}"] = joined
        elif not re.search(r"[kv]_proj", key):
            names[f"model.{_replace(key, _OPEN_CLIP)}"] = value
    return names
