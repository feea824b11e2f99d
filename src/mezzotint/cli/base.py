"""A checkpoint as the trainer takes it; the two packages do not know each other."""

from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.trainer.base import Base


def base_of(checkpoint: Checkpoint) -> Base:
    """Return a checkpoint's parts as the model that a run starts from."""
    return Base(
        name=checkpoint.name,
        digest=checkpoint.digest,
        text_encoder=checkpoint.text_encoder,
        unet=checkpoint.unet,
        vae=checkpoint.vae,
        tokenizer=checkpoint.tokenizer,
        scheduler=checkpoint.scheduler,
    )
