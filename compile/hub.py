"""Fetches a checkpoint from the hub, or finds it in the hub's local cache, as a diffusers folder."""

import re
from pathlib import Path

import diffusers
import huggingface_hub

from mezzotint.compile.diffusers_folder import first_line
from mezzotint.engines.errors import CheckpointError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_TIMEOUT_S = 10.0


def fetch(source: str, with_safety_checker: bool) -> Path:
    """Return the local folder of a hub id, without a network the cached one; raises CheckpointError."""
    if not _HUB_ID.fullmatch(source):
        raise CheckpointError(
            f"{source}: no such file or folder, nor a hub id (owner/name); "
            "give a diffusers folder, a .safetensors or .ckpt file, or a hub id"
        )
    unreachable = _why_unreachable(source)
    try:
        # Naming a component here keeps it from being fetched.
        left_out = dict.fromkeys(["image_encoder"] if with_safety_checker else ["image_encoder", "safety_checker"])
        offline = unreachable is not None
        return Path(diffusers.DiffusionPipeline.download(source, local_files_only=offline, **left_out))
    except Exception as error:  # the hub's client lets through what its HTTP library raises
        if unreachable is None:
            raise CheckpointError(
                f"{source}: the hub has it, but it cannot be fetched as a diffusers pipeline ({first_line(error)}); "
                "fetch it yourself and give the folder or single file"
            ) from error
        raise CheckpointError(
            f"{source}: no such file or folder, not in the local hub cache, and the hub cannot be reached or has no "
            f"such model ({unreachable}); give a diffusers folder or a single file, or connect"
        ) from error


def _why_unreachable(source: str) -> str | None:
    try:
        # The hub's client has no time limit of its own: on a network that drops packets it would wait for minutes.
        huggingface_hub.model_info(source, timeout=_HUB_TIMEOUT_S)
    except Exception as error:  # see fetch
        return first_line(error)
    return None
