"""What frozen modules make of the data, made once: the VAE's moments of squares, the text encoder's states of captions.

Each picture goes through the VAE alone, so what is cached depends on nothing but itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from mezzotint.trainer.examples import Shot, Source
from mezzotint.trainer.framing import Framing, middle_square


def moments(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Return the VAE's mean and log-variance of pixels in −1…1: [b, 2·channels, h/factor, w/factor], not scaled."""
    encoded: torch.Tensor = vae.encode(pixels).latent_dist.parameters
    return encoded


def cached_moments(
    shots: Iterable[Shot], framing: Framing, vae: Any, device: torch.device
) -> dict[Source, torch.Tensor]:
    """Return the moments of each picture's fixed square: float32 [1 or 2, 2·channels, h, w], as it is and mirrored."""
    found = {}
    with _frozen(vae, device):
        for source, shot in {shot.source: shot for shot in shots}.items():
            square = middle_square(shot.read(), framing.resolution)
            views = [square, square.flip(-1)] if framing.random_flip else [square]
            made = [moments(vae, view[None].to(device))[0] for view in views]
            found[source] = torch.stack(made).float().cpu()
    return found


def tokens_of(captions: Iterable[str], tokenizer: Any) -> dict[str, torch.Tensor]:
    """Return the tokens of each caption, int64 [tokens], padded or cut to the model's length."""
    return {
        caption: tokenizer(
            caption,
            padding="max_length",
            truncation=True,
            max_length=tokenizer.model_max_length,
            return_tensors="pt",
        ).input_ids[0]
        for caption in dict.fromkeys(captions)
    }


def too_long(captions: Sequence[str], tokenizer: Any) -> list[str]:
    """Return the captions that are cut to the model's length, each once."""
    limit = tokenizer.model_max_length - 2  # the two special tokens
    return [caption for caption in dict.fromkeys(captions) if len(tokenizer.tokenize(caption)) > limit]


def cached_states(tokens: dict[str, torch.Tensor], text_encoder: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the text encoder's last states of each caption's tokens: float32 [tokens, width]."""
    with _frozen(text_encoder, device):
        return {caption: text_encoder(ids[None].to(device))[0][0].float().cpu() for caption, ids in tokens.items()}


@contextmanager
def _frozen(module: Any, device: torch.device) -> Iterator[None]:
    """Lend a module to ``device``, in eval mode and without gradients."""
    home, was_training = next(module.parameters()).device, module.training
    module.to(device).eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.to(home).train(was_training)
