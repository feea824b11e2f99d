"""A checkpoint as the compiler sees it: float32 modules, tokenizer, noise schedule and a digest of all of them.

``load_checkpoint`` takes a diffusers folder, a single file, or a hub id, and refuses whatever it cannot compile
faithfully. Imports torch, diffusers and transformers; never server or trainer.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import transformers

from mezzotint.compile.architecture import add_weights, stated
from mezzotint.compile.diffusers_folder import UNCHECKED, Parts, load_folder, read_json
from mezzotint.compile.hub import fetch
from mezzotint.compile.single_file import load_single_file
from mezzotint.engines.errors import CheckpointError
from mezzotint.engines.manifest import MergedEntry
from mezzotint.engines.model_index import BASE_DIGEST
from mezzotint.engines.sampling import sampler_of_class

_SHA256 = re.compile("[0-9a-f]{64}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")
# Each of these would need one more input than the compiled UNet has.
_UNSUPPORTED_UNET = (
    "class_embed_type",
    "num_class_embeds",
    "addition_embed_type",
    "encoder_hid_dim_type",
)
_TEXT_CONFIG = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "hidden_act",
    "layer_norm_eps",
    "eos_token_id",
)


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """A scheduler config's values under diffusers' names; what the config does not say is its class's default.

    Attributes:
        scheduler_class: the checkpoint's own scheduler in diffusers, e.g. ``PNDMScheduler``: its default sampler.
        sampler: our name of what that class and its settings are, with its noise levels; empty where none is served.
        unstated: the fields that the config does not say. diffusers gives such a field each scheduler's own default, so
            another sampler than the checkpoint's may space its timesteps differently.
    """

    scheduler_class: str
    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    trained_betas: tuple[float, ...] | None
    prediction_type: str
    timestep_spacing: str
    steps_offset: int
    set_alpha_to_one: bool
    rescale_betas_zero_snr: bool
    use_karras_sigmas: bool
    sampler: str
    unstated: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A Stable Diffusion 1.x or 2.x model, ready to be compiled.

    Attributes:
        source: the checkpoint as the user named it.
        name: a default bundle name: lower case letters, digits, ``.``, ``_`` and ``-``.
        digest: SHA-256 (hex) over weights, configs, tokenizer and schedule; the same however they were stored.
        text_encoder: float32, eval mode, no gradients, as are ``unet`` and ``vae``.
        tokenizer: what ``pipeline`` tokenises with.
        scheduler: what ``pipeline`` copies its scheduler from.
        tokenizer_json: the text of the ``tokenizers`` library's ``tokenizer.json``, without padding or truncation.
        max_tokens: how many tokens a prompt is padded or cut to, the two special ones included.
        schedule: the scheduler config's values.
        notes: one sentence for each thing that a user might expect and does not get.
        safety_folder: the diffusers folder with its safety checker, where that is to be compiled.
        base_digest: of the checkpoint that this one was made from, where it says so.
        merged: the adapters that were merged into its weights, in this order.
    """

    source: str
    name: str
    digest: str
    text_encoder: transformers.CLIPTextModel
    unet: diffusers.UNet2DConditionModel
    vae: diffusers.AutoencoderKL
    tokenizer: transformers.CLIPTokenizerFast
    scheduler: diffusers.SchedulerMixin
    tokenizer_json: str
    max_tokens: int
    bos_token_id: int
    eos_token_id: int
    pad_token_id: int
    schedule: ScheduleSettings
    notes: tuple[str, ...]
    safety_folder: Path | None
    base_digest: str | None = None
    merged: tuple[MergedEntry, ...] = ()

    @property
    def fills_in(self) -> bool:
        """Whether the UNet also takes a mask and what it leaves of a picture, as those that were trained to inpaint."""
        return int(self.unet.config.in_channels) != int(self.unet.config.out_channels)

    def pipeline(self) -> diffusers.DiffusionPipeline:
        """Return diffusers' own float32 pipeline over the same modules, with a scheduler of its own."""
        kind = diffusers.StableDiffusionInpaintPipeline if self.fills_in else diffusers.StableDiffusionPipeline
        return kind(
            vae=self.vae,
            text_encoder=self.text_encoder,
            tokenizer=self.tokenizer,
            unet=self.unet,
            scheduler=type(self.scheduler).from_config(self.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )


def load_checkpoint(source: str | Path, *, config: Path | None = None, with_safety_checker: bool = False) -> Checkpoint:
    """Load a diffusers folder, a single ``.safetensors`` or ``.ckpt`` file, or a hub id such as ``owner/name``.

    ``config`` is a diffusers folder that gives a single file its configs and tokenizer; Stable Diffusion 1.x and 2.x
    files need none. ``with_safety_checker`` keeps ``safety_folder``. Raises CheckpointError.
    """
    path = folder = Path(source).expanduser()
    if path.is_file():
        parts = load_single_file(path, config)
    elif config is not None:
        raise CheckpointError(f"{source}: not a file, and config ({config}) is only for single files; leave it out")
    else:
        folder = path if path.is_dir() else fetch(str(source), with_safety_checker)
        parts = load_folder(folder)
    if with_safety_checker and parts.safety_folder is None:
        raise CheckpointError(
            f"{source}: has no safety checker to compile; give a diffusers folder that has one, or leave "
            "out `--with-safety-checker`"
        )
    _check_fit(str(source), parts)
    schedule = schedule_settings(parts.scheduler)
    parts.tokenizer.model_max_length = _max_tokens(parts)
    tokenizer_json = parts.tokenizer.backend_tokenizer.to_str()
    return Checkpoint(
        source=str(source),
        name=_bundle_name(path),
        digest=checkpoint_digest(parts, schedule, tokenizer_json),
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        tokenizer=parts.tokenizer,
        scheduler=parts.scheduler,
        tokenizer_json=tokenizer_json,
        max_tokens=_max_tokens(parts),
        bos_token_id=parts.tokenizer.bos_token_id,
        eos_token_id=parts.tokenizer.eos_token_id,
        pad_token_id=parts.tokenizer.pad_token_id,
        schedule=schedule,
        notes=parts.notes if with_safety_checker or parts.safety_folder is None else (*parts.notes, UNCHECKED),
        safety_folder=parts.safety_folder if with_safety_checker else None,
        base_digest=None if path.is_file() else _base_digest(folder),
    )


def module_digest(name: str, module: Any) -> str:
    """Return the SHA-256 (hex) of a diffusers module's config and weights."""
    digest = hashlib.sha256(f"{json.dumps(stated(module), sort_keys=True)}\n".encode())
    add_weights(digest, name, module.state_dict())
    return digest.hexdigest()


def text_settings(encoder: transformers.CLIPTextModel) -> dict[str, Any]:
    """Return what shapes a text encoder's output, apart from its weights."""
    return {name: getattr(encoder.config, name) for name in _TEXT_CONFIG}


def schedule_settings(scheduler: diffusers.SchedulerMixin) -> ScheduleSettings:
    """Return what a diffusers scheduler's config says, with DDIM's default for what its class does not know."""
    config = scheduler.config
    defaults = {name: p.default for name, p in inspect.signature(diffusers.DDIMScheduler.__init__).parameters.items()}
    # diffusers keeps under this name which values its constructor filled in.
    filled_in = config.get("_use_default_values", ())
    own = ("scheduler_class", "sampler", "unstated")
    fields = [name for name in ScheduleSettings.__dataclass_fields__ if name not in own]
    values = {name: config.get(name, defaults.get(name, False)) for name in fields}
    values["trained_betas"] = None if values["trained_betas"] is None else tuple(map(float, values["trained_betas"]))
    unstated = tuple(name for name in fields if name in filled_in or name not in config)
    sampler = _sampler_name(type(scheduler).__name__, config)
    return ScheduleSettings(scheduler_class=type(scheduler).__name__, sampler=sampler, unstated=unstated, **values)


def _sampler_name(scheduler_class: str, config: Mapping[str, Any]) -> str:
    sampler = sampler_of_class(scheduler_class, config)
    if sampler is None:
        return ""
    spread = [sigmas for sigmas in sampler.sigma_spacings if config.get(f"use_{sigmas.value}_sigmas")]
    return " ".join([sampler.name, *spread])


def _base_digest(folder: Path) -> str | None:
    digest = read_json(folder / "model_index.json").get(BASE_DIGEST)
    if digest is None or (isinstance(digest, str) and _SHA256.fullmatch(digest)):
        return digest
    raise CheckpointError(
        f"{folder / 'model_index.json'}: {BASE_DIGEST} is {digest!r}, expected the SHA-256 of the base in hex; "
        "correct or remove it"
    )


def _bundle_name(path: Path) -> str:
    resolved = path.resolve()
    name = resolved.stem if resolved.is_file() else resolved.name
    return _NOT_IN_NAMES.sub("-", name.lower()).strip(".-") or "model"


def _max_tokens(parts: "Parts | Checkpoint") -> int:
    return int(min(parts.text_encoder.config.max_position_embeddings, parts.tokenizer.model_max_length))


def _check_fit(source: str, parts: Parts) -> None:
    unet, vae, text = parts.unet.config, parts.vae.config, parts.text_encoder.config
    channels = vae["latent_channels"]
    filling_in = 2 * channels + 1  # latents, a mask, and the latents of what it leaves
    for name, allowed in (("in_channels", (channels, filling_in)), ("out_channels", (channels,))):
        if unet[name] not in allowed:
            expected = " or ".join(map(str, allowed))
            raise CheckpointError(
                f"{source}: the UNet's {name} is {unet[name]}, expected {expected} beside the VAE's latent_channels "
                f"({channels}); depth and upscaling models do not compile"
            )
    if unet["cross_attention_dim"] != text.hidden_size:
        raise CheckpointError(
            f"{source}: the UNet's cross_attention_dim is {unet['cross_attention_dim']}, expected the text "
            f"encoder's hidden_size ({text.hidden_size}); the components are not of one model"
        )
    for name in _UNSUPPORTED_UNET:
        if unet.get(name) is not None:
            raise CheckpointError(
                f"{source}: the UNet's {name} is {unet[name]}, expected none; "
                "only UNets that read latents, timestep, text and guidance compile"
            )
    largest = max(parts.tokenizer.get_vocab().values())
    if largest >= text.vocab_size:
        raise CheckpointError(
            f"{source}: the tokenizer gives ids up to {largest}, expected less than the text encoder's "
            f"vocab_size ({text.vocab_size}); the components are not of one model"
        )
    for name in ("bos_token", "eos_token", "pad_token"):
        if getattr(parts.tokenizer, f"{name}_id") is None:
            raise CheckpointError(
                f"{source}: the tokenizer has no {name}, expected one; name it in tokenizer_config.json"
            )


def checkpoint_digest(parts: "Parts | Checkpoint", schedule: ScheduleSettings, tokenizer_json: str) -> str:
    """Hash float32 values, not files: the same weights give the same digest from a folder, a single file or shards."""
    digest = hashlib.sha256()

    def add(label: str, content: object) -> None:
        digest.update(f"{label}={json.dumps(content, sort_keys=True)}\n".encode())

    add("text_encoder", text_settings(parts.text_encoder))
    add("unet", stated(parts.unet))
    add("vae", stated(parts.vae))
    add("tokenizer", json.loads(tokenizer_json))
    add("tokens", [parts.tokenizer.pad_token_id, _max_tokens(parts)])
    # what is sampled with by default is no part of what is compiled
    add("schedule", {name: value for name, value in asdict(schedule).items() if name != "sampler"})
    for component, module in (("text_encoder", parts.text_encoder), ("unet", parts.unet), ("vae", parts.vae)):
        add_weights(digest, component, module.state_dict())
    return digest.hexdigest()
