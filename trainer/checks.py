"""What may be wrong with data that can be read: sentences for the user, and what no model can take."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mezzotint.engines.errors import TrainError
from mezzotint.trainer.base import Base
from mezzotint.trainer.framing import Framing
from mezzotint.trainer.latents import too_long
from mezzotint.trainer.pictures import Size, left_out, shown

_NOTED_ENLARGEMENT = 2
_MAX_LISTED = 3


def check_resolution(resolution: int, base: Base) -> None:
    """Refuse squares that the VAE or the UNet cannot halve often enough. Raises TrainError."""
    halvings = len(base.vae.config.block_out_channels) - 1 + len(base.unet.config.down_block_types) - 1
    step = 2**halvings
    if resolution % step:
        lower = resolution // step * step
        near = ", ".join(str(side) for side in (lower, lower + step) if side)
        raise TrainError(f"resolution={resolution}: must be a multiple of {step} for {base.name}; nearest {near}")


def check_trainable(base: Base) -> None:
    """Refuse models whose UNet takes more than noisy latents and text. Raises TrainError."""
    config = base.unet.config
    if config.in_channels != config.out_channels:
        raise TrainError(
            f"{base.name}: its UNet takes {config.in_channels} channels, since it was trained to inpaint; "
            "train a model that paints from noise"
        )
    if config.time_cond_proj_dim is not None:
        raise TrainError(
            f"{base.name}: its UNet takes guidance as an input, as distilled ones do; train what it was made from"
        )


def folder_notes(folders: Iterable[Path]) -> list[str]:
    """Return a sentence for each folder with files that look like pictures of kinds that are not read."""
    return [
        f"{shown(folder)}: {_listed(names)} left out, being no PNG, JPEG or WebP file by name"
        for folder in dict.fromkeys(folders)
        if (names := left_out(folder))
    ]


def size_notes(sizes: Mapping[Path, Size], framing: Framing, cache_latents: bool) -> list[str]:
    """Return sentences on pictures that are enlarged much, and on crops that keep latents from being cached."""
    notes = []
    small = [shown(path) for path, size in sizes.items() if min(size) * _NOTED_ENLARGEMENT < framing.resolution]
    if small:
        notes.append(
            f"{_listed(small)} more than {_NOTED_ENLARGEMENT} times smaller than the resolution of "
            f"{framing.resolution}: the subject will be learned blurred"
        )
    if cache_latents and not all(framing.is_fixed(size) for size in sizes.values()):
        notes.append(
            "latents are not cached, since crops of pictures that are not square are drawn anew each time; "
            "center_crop makes steps faster"
        )
    return notes


def caption_notes(captions: Sequence[str], class_prompt: str, identifier: str, tokenizer: Any) -> list[str]:
    """Return sentences on captions that are cut, that are the class's own, and that do not say the identifier."""
    notes = []
    if not identifier and class_prompt in captions:
        notes.append(
            f"{class_prompt!r} is both the class's prompt and the subject's: it is the class itself that will change; "
            "give the subject a word of its own"
        )
    if cut := [repr(caption) for caption in too_long(captions, tokenizer)]:
        notes.append(f"{_listed(cut)} longer than the {tokenizer.model_max_length - 2} tokens that the model takes")
    words = identifier.lower().split()
    lacking = [repr(text) for text in dict.fromkeys(captions) if not all(word in text.lower() for word in words)]
    if lacking:
        notes.append(
            f"{_listed(lacking)} without the identifier {identifier!r}: such pictures change the class itself, not the "
            "subject's name"
        )
    return notes


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f"{', '.join(names[:_MAX_LISTED])}{more} {'is' if len(names) == 1 else 'are'}"
