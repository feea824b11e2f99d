"""What torch's own decoder measures in its group norms: the truth for the engine that decodes pictures in tiles."""

import numpy as np
import torch

from mezzotint.compile.checkpoint import Checkpoint
from mezzotint.compile.export import part
from mezzotint.compile.graph.statistics import GIVEN
from mezzotint.compile.reference import Arrays
from mezzotint.engines.component import Component
from mezzotint.engines.manifest import INNER, STATISTICS
from mezzotint.engines.variants import TILE, stem

NAME = stem(Component.VAE_DECODER, TILE)


def record_tile(checkpoint: Checkpoint, recorded: Arrays) -> Arrays:
    """Return what the decoder makes of the recorded latents, and what its norms measure.

    All is there twice: for norms that are given nothing, and for those that are given what they would measure.
    """
    module = part(checkpoint, Component.VAE_DECODER).module
    found: list[torch.Tensor] = []

    def measure(norm: torch.nn.GroupNorm, args: tuple[torch.Tensor, ...]) -> None:
        grouped = args[0].reshape(len(args[0]), norm.num_groups, -1)
        deviation = (grouped.var(dim=2, correction=0) + norm.eps).sqrt()
        found.append(torch.stack([grouped.mean(dim=2), deviation], dim=1))

    norms = [inner for inner in module.modules() if isinstance(inner, torch.nn.GroupNorm)]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        with torch.no_grad():
            module(torch.from_numpy(recorded["vae_decoder/latents"]))
    finally:
        for hook in hooks:
            hook.remove()
    statistics = torch.cat(found, dim=2).numpy()
    own = {name: recorded[f"vae_decoder/{name}"] for name in ("latents", "pixels")}
    own |= {STATISTICS: statistics, INNER: np.zeros((len(statistics), 1), np.float32)}
    both = {name: np.concatenate([array, array]) for name, array in own.items()}
    both |= {GIVEN: np.concatenate([np.zeros_like(statistics), statistics])}
    return {f"{NAME}/{name}": array for name, array in both.items()}
