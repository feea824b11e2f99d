"""Bases for the trainer's tests, read as the command line reads them."""

from pathlib import Path

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.trainer.base import Base


def read_base(folder: Path) -> Base:
    """Read a checkpoint into fresh modules, which a test may change."""
    checkpoint = load_checkpoint(folder)
    return Base(
        name=checkpoint.name,
        digest=checkpoint.digest,
        text_encoder=checkpoint.text_encoder,
        unet=checkpoint.unet,
        vae=checkpoint.vae,
        tokenizer=checkpoint.tokenizer,
        scheduler=checkpoint.scheduler,
    )
