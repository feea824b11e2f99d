"""Merges LoRA files into a checkpoint's weights, before anything is exported.

The layouts of diffusers, PEFT and kohya are read, loaded and added up by diffusers' and PEFT's own code. Where that
leaves out what does not fit the model and only logs it, here it is an error.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import diffusers
import peft
import torch
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY, LORA_WEIGHT_NAME_SAFE
from diffusers.utils.state_dict_utils import (
    StateDictType,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import safe_open

from mezzotint.compile.checkpoint import Checkpoint, checkpoint_digest
from mezzotint.compile.diffusers_folder import TEXT_ENCODER, UNET, first_line, settle
from mezzotint.compile.job import LoraFile
from mezzotint.compile.single_file import read_state
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import CheckpointError
from mezzotint.engines.manifest import MergedEntry

_SUFFIXES = (".safetensors", ".bin", ".pt", ".ckpt")
_PEFT_FILE, _PEFT_CONFIG, _PEFT_PREFIX = "adapter_model.safetensors", "adapter_config.json", "base_model.model."
# The two matrices of a layer under the names of PEFT, of kohya, and of diffusers then and now.
_MATRIX = re.compile(r"(?P<layer>.+?)[._]lora(?:_linear_layer)?[._](?P<side>A|B|down|up)\.weight")
_ALPHA = ".alpha"
_ADAPTER = "merged"

_State = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class _Adapter:
    """Matrices in float32 by component under PEFT's names, and what PEFT's config says of each component, if any."""

    file: Path
    weights: Mapping[str, _State]
    configs: Mapping[str, dict[str, Any] | None]


def merge_loras(checkpoint: Checkpoint, loras: Sequence[LoraFile]) -> Checkpoint:
    """Add LoRAs to the modules of ``checkpoint`` in place; returns it with the digest of what it is now.

    Its ``base_digest`` is then that of what they were merged into. Raises CheckpointError for a file that cannot be
    read or does not fit the model in every key and shape.
    """
    if not loras:
        return checkpoint
    merged = tuple(_merge(checkpoint, lora) for lora in loras)
    return replace(
        checkpoint,
        digest=checkpoint_digest(checkpoint, checkpoint.schedule, checkpoint.tokenizer_json),
        base_digest=checkpoint.digest,
        merged=(*checkpoint.merged, *merged),
    )


def _merge(checkpoint: Checkpoint, lora: LoraFile) -> MergedEntry:
    if not math.isfinite(lora.weight):
        raise CheckpointError(f"{lora.path}: its weight is {lora.weight}, expected a finite number such as 0.8")
    adapter = _read(_file_of(lora.path), checkpoint)
    for component in adapter.weights:
        _check_fit(adapter, component, getattr(checkpoint, component))
    pipeline = checkpoint.pipeline()
    for component in adapter.weights:
        _load(pipeline, component, adapter)
    pipeline.fuse_lora(components=list(adapter.weights), lora_scale=lora.weight, adapter_names=[_ADAPTER])
    pipeline.unload_lora_weights()
    for component in adapter.weights:
        settle(component, adapter.file, getattr(checkpoint, component))
    return MergedEntry(name=adapter.file.name, digest=file_digest(adapter.file), weight=lora.weight)


def _file_of(path: Path) -> Path:
    names = (LORA_WEIGHT_NAME_SAFE, _PEFT_FILE)
    file = path if path.is_file() else next((path / name for name in names if (path / name).is_file()), None)
    if file is None:
        raise CheckpointError(f"{path}: no such file, nor a folder with {' or '.join(names)}; give a LoRA file")
    return file


def _read(file: Path, checkpoint: Checkpoint) -> _Adapter:
    raw = {key: value.float() for key, value in read_state(file, _SUFFIXES).items()}
    is_peft = any(key.startswith(_PEFT_PREFIX) for key in raw)
    config = _peft_config(file) if is_peft else _stated_config(file)
    state = _paired(file, raw)
    try:
        state, _ = diffusers.StableDiffusionPipeline.lora_state_dict(state)
    except Exception as error:  # the converter indexes names without asking
        raise CheckpointError(
            f"{file}: its keys cannot be converted ({type(error).__name__}: {first_line(error)}), expected a LoRA of "
            "Stable Diffusion 1.x or 2.x in diffusers', PEFT's or kohya's layout"
        ) from error
    weights: dict[str, _State] = {}
    for key, value in state.items():
        component, name = _place(key)
        weights.setdefault(component, {})[name] = value
    weights = {component: _renamed(component, state, checkpoint) for component, state in weights.items()}
    return _Adapter(file, weights, {part: config if is_peft else _part_of(config, part) for part in weights})


def _renamed(component: str, state: _State, checkpoint: Checkpoint) -> _State:
    """Return a component's matrices under PEFT's names, whatever diffusers' names were when they were written."""
    if component == UNET:
        renamed: _State = convert_unet_state_dict_to_peft(state)
        return renamed
    # This mapping takes in the newer names too.
    renamed = convert_state_dict_to_peft(state, original_type=StateDictType.DIFFUSERS_OLD)
    # transformers 5.6 took the inner "text_model." away.
    inner = "text_model." if hasattr(checkpoint.text_encoder, "text_model") else ""
    return {inner + key.removeprefix("text_model."): value for key, value in renamed.items()}


def _part_of(config: Mapping[str, Any], component: str) -> dict[str, Any] | None:
    prefix = f"{component}."
    return {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)} or None


def _peft_config(file: Path) -> dict[str, Any]:
    """Return what PEFT wrote beside its matrices: rank and alpha of each layer are there and nowhere else."""
    if not file.with_name(_PEFT_CONFIG).is_file():
        raise CheckpointError(
            f"{file}: has no {_PEFT_CONFIG} beside it, which says how strong PEFT's matrices are; keep the two together"
        )
    try:
        config = peft.PeftConfig.from_pretrained(str(file.parent))
    except Exception as error:  # PEFT's classes refuse in their own ways
        raise CheckpointError(
            f"{file.with_name(_PEFT_CONFIG)}: cannot be read by PEFT {peft.__version__} ({first_line(error)}); save it "
            "again"
        ) from error
    if config.peft_type != peft.PeftType.LORA:
        raise CheckpointError(
            f"{file.with_name(_PEFT_CONFIG)}: peft_type is {config.peft_type.value}, expected LORA; other adapters do "
            "not merge"
        )
    stated: dict[str, Any] = config.to_dict()
    return stated


def _stated_config(file: Path) -> dict[str, Any]:
    """Return what diffusers wrote into a file's header: PEFT's config, each key behind its component's name."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(file, framework="pt") as header:
        text = (header.metadata() or {}).get(LORA_ADAPTER_METADATA_KEY, "{}")
    try:
        config: dict[str, Any] = dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise CheckpointError(
            f"{file}: its header's {LORA_ADAPTER_METADATA_KEY} is no JSON object ({first_line(error)}); save the file "
            "again"
        ) from error
    return config


def _paired(file: Path, raw: _State) -> _State:
    """Check that a file holds pairs of finite matrices and nothing else; each layer's alpha goes into its first one.

    diffusers names the layers of alphas in ways that PEFT does not find again where they differ from layer to layer.
    """
    layers: dict[str, dict[str, str]] = {}
    alphas, unknown = {}, []
    for key, value in raw.items():
        if not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{file}: {key} holds NaN or infinity, expected finite numbers; the file is damaged, take another"
            )
        if found := _MATRIX.fullmatch(key):
            layers.setdefault(found["layer"], {})["down" if found["side"] in ("A", "down") else "up"] = key
        elif key.endswith(_ALPHA) and value.numel() == 1:
            alphas[key.removesuffix(_ALPHA)] = value.item()
        else:
            unknown.append(key)
    unknown += [layer + _ALPHA for layer in alphas if layer not in layers]
    if unknown or not layers:
        raise CheckpointError(
            f"{file}: holds {_listed(unknown) or 'nothing'}, expected pairs of matrices of LoRA in diffusers', PEFT's "
            "or kohya's layout; DoRA, LoHa, LoKr and whole checkpoints do not merge"
        )
    lonely = [layer for layer, sides in layers.items() if len(sides) == 1]
    if lonely:
        raise CheckpointError(
            f"{file}: lacks one of the two matrices of {_listed(lonely)}, expected both; fetch the file again"
        )
    matrices = {key: raw[key] for sides in layers.values() for key in sides.values()}
    for layer, alpha in alphas.items():
        down = layers[layer]["down"]
        matrices[down] = matrices[down] * (alpha / max(len(matrices[down]), 1))
    return matrices


def _place(key: str) -> tuple[str, str]:
    """Return component and name of a key; PEFT's name no component, and diffusers' first ones were the UNet's."""
    head, _, rest = key.partition(".")
    if head in (UNET, TEXT_ENCODER):
        return head, rest
    name = key.removeprefix(_PEFT_PREFIX)
    return TEXT_ENCODER if name.startswith(("text_model.", "encoder.")) else UNET, name


def _check_fit(adapter: _Adapter, component: str, module: Any) -> None:
    """Check that a file has just the layers that it should, and that their matrices' product has the weight's shape."""
    file, state, modules = adapter.file, adapter.weights[component], dict(module.named_modules())
    names = sorted({key.rpartition(".lora_")[0] for key in state})
    lacking = [name for name in names if not isinstance(modules.get(name), torch.nn.Linear | torch.nn.Conv2d)]
    if lacking:
        raise CheckpointError(
            f"{file}: changes {_listed(lacking)}, which this model's {component} does not have as a linear layer or "
            "convolution; it was trained for another model"
        )
    for name in names:
        down, up = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        weight = modules[name].weight
        rank, ones = len(down), (1,) * (weight.ndim - 2)
        if down.shape != (rank, *weight.shape[1:]) or up.shape != (len(weight), rank, *ones):
            raise CheckpointError(
                f"{file}: the matrices of {component}.{name} are {tuple(down.shape)} and {tuple(up.shape)}, expected "
                f"(rank, {', '.join(map(str, weight.shape[1:]))}) and ({len(weight)}, rank{', 1' * len(ones)}); it was "
                "trained for another model"
            )
    missing = sorted(_layers_of(adapter, component, modules) - set(names))
    if missing:
        raise CheckpointError(
            f"{file}: lacks {_listed(missing)} of the {component}, which its own config names; fetch the file again"
        )


def _layers_of(adapter: _Adapter, component: str, names: Iterable[str]) -> set[str]:
    """Return those of a component's layers that the file's config names; none where it has no config."""
    config = adapter.configs[component]
    if config is None:
        return set()
    try:
        stated = peft.LoraConfig(**config)
        return {name for name in names if name and check_target_module_exists(stated, name)}
    except (TypeError, ValueError, re.error) as error:
        raise CheckpointError(
            f"{adapter.file}: PEFT {peft.__version__} cannot read its config ({first_line(error)}); update peft"
        ) from error


def _load(pipeline: diffusers.StableDiffusionPipeline, component: str, adapter: _Adapter) -> None:
    """Put the matrices beside the layers of a component, through diffusers, and check that every one is there."""
    state, module = adapter.weights[component], getattr(pipeline, component)
    load = pipeline.load_lora_into_unet if component == UNET else pipeline.load_lora_into_text_encoder
    named = {f"{component}.{key}": value for key, value in state.items()}
    config = adapter.configs[component]
    metadata = config and {f"{component}.{key}": value for key, value in config.items()}
    try:
        load(named, None, module, adapter_name=_ADAPTER, metadata=metadata)
        loaded = peft.get_peft_model_state_dict(module, adapter_name=_ADAPTER)
    except Exception as error:  # both libraries let through what their layers raise
        raise CheckpointError(
            f"{adapter.file}: cannot be merged into the {component} ({type(error).__name__}: {first_line(error)}); "
            "save it again with diffusers, PEFT or kohya's scripts"
        ) from error
    if loaded.keys() != state.keys() or not all(torch.equal(loaded[key], value) for key, value in state.items()):
        raise CheckpointError(
            f"{adapter.file}: diffusers {diffusers.__version__} and PEFT {peft.__version__} do not load all of it into "
            f"the {component}; save it again with diffusers, PEFT or kohya's scripts"
        )


def _listed(names: Sequence[str]) -> str:
    """Return how many names there are and the first of them; nothing for none."""
    return f"{len(names)} keys ({names[0]}{', …' if len(names) > 1 else ''})" if names else ""
