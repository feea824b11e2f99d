"""The state of torch's global random numbers, for what does not draw by counter: dropout."""

from typing import Any

import torch
from torch import distributed


def gather() -> list[dict[str, Any]]:
    """Return the state of every process, by rank; all of them must ask."""
    mine = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}
    if not (distributed.is_available() and distributed.is_initialized()):
        return [mine]
    states: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(states, mine)
    return states


def restore(state: dict[str, Any]) -> None:
    """Go on from a state that ``gather`` returned, on as many devices as there are now."""
    torch.set_rng_state(state["cpu"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)
