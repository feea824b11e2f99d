"""Reads a diffusers folder strictly: every weight is there, finite and of the shape that its config says.

diffusers and transformers fill missing weights with random numbers and only log it; here that is an error. Imports
torch, diffusers and transformers; knows nothing of engines but the errors.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from mezzotint.engines.errors import CheckpointError

TEXT_ENCODER, TOKENIZER, UNET, VAE, SCHEDULER = "text_encoder", "tokenizer", "unet", "vae", "scheduler"
SAFETY_CHECKER = "safety_checker"

_CLASSES = {
    TEXT_ENCODER: ("CLIPTextModel",),
    TOKENIZER: ("CLIPTokenizer", "CLIPTokenizerFast"),
    UNET: ("UNet2DConditionModel",),
    VAE: ("AutoencoderKL",),
}
_NOT_COMPILED = {
    "image_encoder": "the checkpoint's image encoder is not compiled: image prompts are not served",
}
UNCHECKED = (
    "the checkpoint's safety checker is left out, so pictures are served unchecked; "
    "compile with `--with-safety-checker` to include it"
)
# It prepares pictures for safety checker and image encoder, and has no weights of its own.
_IGNORED = ("feature_extractor",)
_PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A checkpoint's components in float32, eval mode, without gradients, and what was left out of them.

    ``safety_folder`` is the diffusers folder that holds its safety checker, if it has one.
    """

    text_encoder: transformers.CLIPTextModel
    unet: diffusers.UNet2DConditionModel
    vae: diffusers.AutoencoderKL
    tokenizer: transformers.CLIPTokenizerFast
    scheduler: diffusers.SchedulerMixin
    notes: tuple[str, ...]
    safety_folder: Path | None = None


@dataclass(frozen=True, slots=True)
class FolderIndex:
    """What ``model_index.json`` says: the scheduler's class and one sentence for each component left out.

    ``has_safety_checker`` is whether it names one, which is an option of the compiler's.
    """

    scheduler_class: str
    notes: tuple[str, ...]
    has_safety_checker: bool


@dataclass(frozen=True, slots=True)
class _WeightFiles:
    files: tuple[Path, ...]
    variant: str | None
    use_safetensors: bool


def load_folder(folder: Path) -> Parts:
    """Load a diffusers folder; raises CheckpointError where anything in it is missing, damaged or unknown."""
    index = read_index(folder)
    return Parts(
        text_encoder=load_module(transformers.CLIPTextModel, TEXT_ENCODER, folder / TEXT_ENCODER, "model"),
        unet=load_module(diffusers.UNet2DConditionModel, UNET, folder / UNET, "diffusion_pytorch_model"),
        vae=load_module(diffusers.AutoencoderKL, VAE, folder / VAE, "diffusion_pytorch_model"),
        tokenizer=load_tokenizer(folder / TOKENIZER),
        scheduler=load_scheduler(folder / SCHEDULER, index.scheduler_class),
        notes=index.notes,
        safety_folder=folder if index.has_safety_checker else None,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object; raises CheckpointError that names the file."""
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give a complete diffusers folder (model_index.json and its components)"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({first_line(error)}); fetch or write the file again") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a JSON {type(content).__name__}, expected an object; fetch the file again"
        )
    return content


def read_index(folder: Path) -> FolderIndex:
    """Read ``model_index.json`` and check the class of every component; raises CheckpointError."""
    index = read_json(folder / "model_index.json")
    classes = {name: _class_of(folder, name, entry) for name, entry in index.items() if isinstance(entry, list)}
    for name, expected in _CLASSES.items():
        if classes.get(name) not in expected:
            raise CheckpointError(
                f"{folder}: {name} is {classes.get(name)}, expected {' or '.join(expected)}; "
                "only Stable Diffusion 1.x and 2.x checkpoints compile"
            )
    scheduler_class = classes.get(SCHEDULER)
    if scheduler_class is None:
        raise CheckpointError(
            f"{folder}: scheduler is None, expected a scheduler class of diffusers; name one in model_index.json"
        )
    known = {*_CLASSES, SCHEDULER, SAFETY_CHECKER, *_NOT_COMPILED, *_IGNORED}
    unknown = {name: found for name, found in classes.items() if found is not None and name not in known}
    if unknown:
        found = ", ".join(f"{name} ({class_name})" for name, class_name in unknown.items())
        raise CheckpointError(
            f"{folder}: unknown component {found}, expected only {', '.join(sorted(known))}; "
            "only Stable Diffusion 1.x and 2.x checkpoints compile"
        )
    notes = tuple(sentence for name, sentence in _NOT_COMPILED.items() if classes.get(name) is not None)
    return FolderIndex(scheduler_class, notes, classes.get(SAFETY_CHECKER) is not None)


def _class_of(folder: Path, name: str, entry: list[Any]) -> str | None:
    if len(entry) != 2 or not (entry[1] is None or isinstance(entry[1], str)):
        raise CheckpointError(
            f"{folder / 'model_index.json'}: {name} is {entry}, expected [library, class]; correct the file"
        )
    return entry[1]


def load_tokenizer(folder: Path, settings: Mapping[str, Any] | None = None) -> transformers.CLIPTokenizerFast:
    """Load CLIP's fast tokenizer from ``tokenizer.json`` or ``vocab.json`` + ``merges.txt``.

    ``settings`` replaces what the folder's ``tokenizer_config.json`` says. Raises CheckpointError.
    """
    pair = ("vocab.json", "merges.txt")
    if not (folder / "tokenizer.json").is_file() and not all((folder / name).is_file() for name in pair):
        raise CheckpointError(
            f"{folder}: no tokenizer, expected tokenizer.json or both vocab.json and merges.txt; "
            "give a complete diffusers folder"
        )
    for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            read_json(folder / name)
    try:
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder, local_files_only=True, **(settings or {}))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise CheckpointError(
            f"{folder}: the tokenizer cannot be read ({first_line(error)}); fetch its files again"
        ) from error
    # Padding and length belong to whoever tokenises; a saved tokenizer.json may carry those of its last call.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load_scheduler(folder: Path, class_name: str) -> diffusers.SchedulerMixin:
    """Load a diffusers scheduler that has betas; raises CheckpointError for any other."""
    read_json(folder / "scheduler_config.json")
    scheduler_class: Any = getattr(diffusers, class_name, None)
    is_scheduler = isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)
    if not is_scheduler:
        raise CheckpointError(
            f"{folder}: scheduler is {class_name}, expected a scheduler class of diffusers "
            f"{diffusers.__version__} such as DDIMScheduler; correct model_index.json"
        )
    try:
        scheduler = scheduler_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # each scheduler class refuses in its own way
        raise CheckpointError(
            f"{folder}: {class_name} cannot be made from scheduler_config.json ({first_line(error)}); correct the file"
        ) from error
    if not hasattr(scheduler, "betas") or not hasattr(scheduler, "alphas_cumprod"):
        raise CheckpointError(
            f"{folder}: {class_name} has no betas, expected a scheduler of a variance-preserving model "
            "such as DDIMScheduler; flow and EDM models do not compile"
        )
    prediction = scheduler.config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise CheckpointError(
            f"{folder}: prediction_type is {prediction}, expected one of {', '.join(_PREDICTIONS)}; "
            "other models do not compile"
        )
    return scheduler


def load_module(module_class: Any, component: str, folder: Path, stem: str) -> Any:
    """Load one component's folder, config and weights, as a module of float32. Raises CheckpointError."""
    read_json(folder / "config.json")
    weights = _find_weights(component, folder, stem)
    for file in weights.files:
        _check_complete(component, file)
    try:
        module, info = module_class.from_pretrained(
            folder,
            local_files_only=True,
            output_loading_info=True,
            use_safetensors=weights.use_safetensors,
            variant=weights.variant,
        )
    except Exception as error:  # from_pretrained lets through what pickle, json, torch and both libraries raise
        raise CheckpointError(
            f"{folder}: {component} cannot be loaded ({first_line(error)}), expected weights of a "
            f"{module_class.__name__} that fit its config.json; fetch or save the component again"
        ) from error
    mismatched = [str(entry[0]) for entry in info["mismatched_keys"]]
    refuse_keys(component, folder, missing=[*info["missing_keys"], *mismatched], unexpected=info["unexpected_keys"])
    return settle(component, folder, module)


def _find_weights(component: str, folder: Path, stem: str) -> _WeightFiles:
    # transformers calls its pickle after the library, diffusers after the model.
    pickle_stem = "pytorch_model" if stem == "model" else stem
    for use_safetensors, name, suffix in ((True, stem, "safetensors"), (False, pickle_stem, "bin")):
        for variant in (None, "fp16"):
            inner = f".{variant}" if variant else ""
            whole = folder / f"{name}{inner}.{suffix}"
            if whole.is_file():
                return _WeightFiles((whole,), variant, use_safetensors)
            shards = folder / f"{name}.{suffix}.index{inner}.json"
            if shards.is_file():
                names = sorted(set(read_json(shards).get("weight_map", {}).values()))
                return _WeightFiles(tuple(folder / shard for shard in names), variant, use_safetensors)
    raise CheckpointError(
        f"{folder}: {component} has no weights, expected {stem}.safetensors or {pickle_stem}.bin "
        "(or its fp16 variant or shards); fetch the component again"
    )


def _check_complete(component: str, file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file, expected a shard of {component}'s weights; fetch it again")
    if file.suffix != ".safetensors":
        return
    try:
        with safe_open(file, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file}: truncated or damaged ({first_line(error)}), expected a complete safetensors file "
            f"of {component}; fetch it again"
        ) from error


def refuse_keys(component: str, where: Path, *, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise CheckpointError if a component's weights lack parameters or hold unknown ones, naming the first of each."""
    # Position ids are a constant that transformers used to save.
    extra = sorted(key for key in unexpected if not key.endswith("position_ids"))
    lacking = sorted(missing)
    if not lacking and not extra:
        return
    problems = [
        f"{len(keys)} {word} ({keys[0]}{', …' if len(keys) > 1 else ''})"
        for keys, word in ((lacking, "missing or of another shape"), (extra, "unexpected"))
        if keys
    ]
    raise CheckpointError(
        f"{where}: {component} has weights {' and '.join(problems)}, expected exactly those of its config; "
        "its config and weights are not of one model"
    )


def settle(component: str, where: Path, module: Any) -> Any:
    """Return the module in float32, eval mode, without gradients; raises CheckpointError if a weight is not finite."""
    module = module.float().eval().requires_grad_(False)
    for name, values in module.state_dict().items():
        if not bool(torch.isfinite(values).all()):
            raise CheckpointError(
                f"{where}: {component} parameter {name} holds NaN or infinity, expected finite numbers; "
                "the checkpoint is damaged, take an earlier one"
            )
    return module


def first_line(error: BaseException) -> str:
    """Return the first line of another library's message, short enough to stand inside one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:")[:200] if lines else type(error).__name__
