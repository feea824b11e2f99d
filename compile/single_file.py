"""Reads a single-file checkpoint in CompVis' layout (``.safetensors`` or ``.ckpt``) through diffusers' key converter.

Needs no network: configs and tokenizer come from a diffusers folder, or, for Stable Diffusion 1.x and 2.x, from
``data/``. Only diffusers' mapping of names is used: its ``from_single_file`` leaves missing weights unset.
"""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import diffusers
import torch
import transformers
from diffusers.loaders import single_file_utils as converter
from safetensors import SafetensorError
from safetensors.torch import load_file

from mezzotint.compile.diffusers_folder import (
    SCHEDULER,
    TEXT_ENCODER,
    TOKENIZER,
    UNET,
    VAE,
    Parts,
    first_line,
    load_scheduler,
    load_tokenizer,
    read_index,
    read_json,
    refuse_keys,
    settle,
)
from mezzotint.engines.errors import CheckpointError

DATA = Path(__file__).resolve().parent / "data"
"""The configs of Stable Diffusion 1.5 and 2.1 as diffusers folders without weights, and CLIP's vocabulary."""

SUFFIXES = (".safetensors", ".ckpt")
"""What a single file is called."""

_State = Mapping[str, torch.Tensor]

_UNET_PREFIX = "model.diffusion_model."
_VAE_PREFIX = "first_stage_model."
_CLIP_PREFIX = "cond_stage_model.transformer."
_OPEN_CLIP_PREFIX = "cond_stage_model.model."
_FIRST_CONV = f"{_UNET_PREFIX}input_blocks.0.0.weight"
_FIRST_SHAPES = ((320, 4, 3, 3), (320, 9, 3, 3))
_FIRST_KEYS = f"{_UNET_PREFIX}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
# Autoencoder checkpoints may carry the discriminator that trained them.
_VAE_TRAINING_PREFIX = f"{_VAE_PREFIX}loss."

_EMA_NOTE = "the file also holds averaged (EMA) weights, which are not used: the plain ones are"
_SD2_NOTE = (
    "read as Stable Diffusion 2.1 (v-prediction, 768 px), which has the same weights by name as 2.1-base "
    "(epsilon, 512 px): for the latter pass --config with its diffusers folder"
)


_SD2_INPAINTING: Mapping[str, Mapping[str, Any]] = {
    "scheduler": {"prediction_type": "epsilon"},
    "unet": {"sample_size": 64},
}  # Stability's own settings


@dataclass(frozen=True, slots=True)
class _Architecture:
    folder: Path
    vocabulary: Path
    notes: tuple[str, ...]
    unlike: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # what the folder's configs say otherwise


def load_single_file(path: Path, config: Path | None = None) -> Parts:
    """Load a CompVis-keyed checkpoint with the configs and tokenizer of the diffusers folder ``config``.

    Without ``config`` the file must be a Stable Diffusion 1.x or 2.x. Raises CheckpointError.
    """
    state = read_state(path, SUFFIXES)
    shape = _recognise(path, state) if config is None else _Architecture(config, config / TOKENIZER, ())
    index = read_index(shape.folder)
    ema = (_EMA_NOTE,) if any(key.startswith("model_ema.") for key in state) else ()
    settings = read_json(shape.folder / TOKENIZER / "tokenizer_config.json") if config is None else None
    scheduler = load_scheduler(shape.folder / SCHEDULER, index.scheduler_class)
    return Parts(
        text_encoder=_text_encoder(path, state, shape.folder),
        unet=_unet(path, state, shape.folder, shape.unlike.get("unet", {})),
        vae=_vae(path, state, shape.folder),
        tokenizer=load_tokenizer(shape.vocabulary, settings),
        scheduler=scheduler.from_config(scheduler.config, **shape.unlike.get("scheduler", {})),
        notes=(*index.notes, *shape.notes, *ema),
    )


def read_state(path: Path, suffixes: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Read a file of tensors, a pickle only if it holds nothing else; raises CheckpointError."""
    if path.suffix not in suffixes:
        raise CheckpointError(
            f"{path}: a {path.suffix or 'nameless'} file, expected {' or '.join(suffixes)}; "
            "give a single-file checkpoint or a diffusers folder"
        )
    try:
        state: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: not a pickle of tensors alone ({first_line(error)}), and other objects could run code; "
            "convert the file to safetensors where you trust it"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged ({first_line(error)}), expected a complete {path.suffix} file; "
            "fetch it again"
        ) from error
    while isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds a {type(state).__name__}, expected a dict of weights; give another file")
    return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}


def _recognise(path: Path, state: _State) -> _Architecture:
    _section(path, state, UNET, _UNET_PREFIX)
    first = tuple(state[_FIRST_CONV].shape) if _FIRST_CONV in state else None
    width = state[_FIRST_KEYS].shape[-1] if _FIRST_KEYS in state else None
    vocabulary = DATA / "clip_tokenizer"
    if first in _FIRST_SHAPES and width == 768:
        return _Architecture(DATA / "sd15", vocabulary, ())
    if first == _FIRST_SHAPES[1] and width == 1024:
        return _Architecture(DATA / "sd21", vocabulary, (), _SD2_INPAINTING)
    if first in _FIRST_SHAPES and width == 1024:
        return _Architecture(DATA / "sd21", vocabulary, (_SD2_NOTE,))
    raise CheckpointError(
        f"{path}: its UNet begins with {first} weights and reads text of width {width}, expected "
        "(320, 4, 3, 3), or 9 to inpaint, and 768 (Stable Diffusion 1.x) or 1024 (2.x); for another size pass "
        "--config with a diffusers folder of its configs and tokenizer"
    )


def _section(path: Path, state: _State, component: str, *prefixes: str) -> tuple[str, dict[str, torch.Tensor]]:
    for prefix in prefixes:
        section = {key: value for key, value in state.items() if key.startswith(prefix)}
        if section:
            return prefix, section
    raise CheckpointError(
        f"{path}: holds no {component}, expected keys that begin with {' or '.join(prefixes)}; "
        "give a full checkpoint (not a LoRA, a bare UNet or a bare VAE)"
    )


def _text_encoder(path: Path, state: _State, folder: Path) -> transformers.CLIPTextModel:
    prefix, section = _section(path, state, TEXT_ENCODER, _CLIP_PREFIX, _OPEN_CLIP_PREFIX)
    config_file = folder / TEXT_ENCODER / "config.json"
    # Its position ids are a constant outside the weights, so it is not built empty.
    model = _build(
        lambda: transformers.CLIPTextModel(transformers.CLIPTextConfig(**read_json(config_file))), config_file
    )
    if prefix == _CLIP_PREFIX:
        converted = converter.convert_ldm_clip_checkpoint(section)
    else:
        converted = converter.convert_open_clip_checkpoint(model, section, prefix=prefix)
    # transformers 5.6 took the inner "text_model." away, and so did some old merges.
    inner = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
    converted = {inner + key.removeprefix("text_model."): value for key, value in converted.items()}
    return _fill(path, TEXT_ENCODER, model, converted)


def _unet(path: Path, state: _State, folder: Path, unlike: Mapping[str, Any]) -> diffusers.UNet2DConditionModel:
    _, section = _section(path, state, UNET, _UNET_PREFIX)
    config_file = folder / UNET / "config.json"
    # more of a model that was trained to inpaint than its config says
    own = {"in_channels": int(section[_FIRST_CONV].shape[1])} if _FIRST_CONV in section else {}
    model = _build_empty(diffusers.UNet2DConditionModel, config_file, {**unlike, **own})
    converted = _converted(path, UNET, converter.convert_ldm_unet_checkpoint, section, model.config)
    return _fill(path, UNET, model, converted)


def _vae(path: Path, state: _State, folder: Path) -> diffusers.AutoencoderKL:
    _, section = _section(path, state, VAE, _VAE_PREFIX)
    config_file = folder / VAE / "config.json"
    model = _build_empty(diffusers.AutoencoderKL, config_file)
    section = {key: value for key, value in section.items() if not key.startswith(_VAE_TRAINING_PREFIX)}
    converted = _converted(path, VAE, converter.convert_ldm_vae_checkpoint, section, model.config)
    return _fill(path, VAE, model, converted)


def _build_empty(model_class: Any, config_file: Path, own: Mapping[str, Any] = MappingProxyType({})) -> Any:
    config = {**read_json(config_file), **own}
    # Random weights for the whole model, only to be replaced, would take longer than everything else here.
    with torch.device("meta"):
        return _build(lambda: model_class.from_config(config), config_file)


def _build(build: Callable[[], Any], config_file: Path) -> Any:
    try:
        return build()
    except CheckpointError:
        raise
    except Exception as error:  # diffusers' and transformers' constructors raise what their layers raise
        raise CheckpointError(
            f"{config_file}: no model can be made from it ({first_line(error)}); correct the file"
        ) from error


def _converted(path: Path, component: str, convert: Any, section: _State, config: Any) -> dict[str, torch.Tensor]:
    try:
        converted: dict[str, torch.Tensor] = convert(section, config=config)
    except Exception as error:  # the converter indexes names without asking
        raise CheckpointError(
            f"{path}: {component}'s keys cannot be converted ({type(error).__name__}: {first_line(error)}), "
            "expected CompVis' layout of the model in the configs; give the diffusers folder"
        ) from error
    # The converter drops names that it does not know; every tensor must come out (as itself or as a view).
    used = {value.data_ptr() for value in converted.values()}
    unknown = [key for key, value in section.items() if value.data_ptr() not in used]
    refuse_keys(component, path, missing=(), unexpected=unknown)
    return converted


def _fill(path: Path, component: str, model: Any, converted: _State) -> Any:
    expected = {name: value.shape for name, value in model.state_dict().items()}
    missing = [name for name, shape in expected.items() if name not in converted or converted[name].shape != shape]
    refuse_keys(component, path, missing=missing, unexpected=converted.keys() - expected.keys())
    weights = {name: converted[name].float().contiguous() for name in expected}
    model.load_state_dict(weights, strict=True, assign=True)
    return settle(component, path, model)
