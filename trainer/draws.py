"""All that a run draws at random, by counter and not by state.

What is drawn for an example comes from (seed, its key, the purpose) alone. So a resumed run, more processes, other
batches and more accumulation draw the same numbers, whatever was drawn before.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch


def generator(seed: int, key: int, purpose: str) -> torch.Generator:
    """Return a CPU generator of its own for one purpose of one example."""
    digest = hashlib.blake2b(f"{seed}/{key}/{purpose}".encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little"))


def normal(seed: int, keys: Iterable[int], purpose: str, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal numbers, float32 [len(keys), *shape], on the CPU."""
    return torch.stack([torch.randn(tuple(shape), generator=generator(seed, key, purpose)) for key in keys])


def timesteps(seed: int, keys: Iterable[int], num_train_timesteps: int) -> torch.Tensor:
    """Return uniform timesteps, int64 [len(keys)], each from 0 up to ``num_train_timesteps`` − 1, on the CPU."""
    drawn = [torch.randint(num_train_timesteps, (), generator=generator(seed, key, "timestep")) for key in keys]
    return torch.stack(drawn)
