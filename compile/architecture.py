"""What of a module decides its graph, and what its values are: the two halves of a checkpoint's identity.

Imports torch.
"""

import hashlib
import inspect
from collections.abc import Mapping
from typing import Any

import torch


def stated(module: Any) -> dict[str, Any]:
    """Return the config values that are not defaults, so that a newer diffusers with more fields changes no digest."""
    parameters = inspect.signature(type(module).__init__).parameters
    return {
        name: module.config[name]
        for name, parameter in parameters.items()
        if name in module.config and _plain(module.config[name]) != _plain(parameter.default)
    }


def layout(module: torch.nn.Module) -> dict[str, Any]:
    """Return names, shapes and types of a module's weights, and the values of its tensors that are none.

    A tensor under two names is noted as such: an exporter keeps it once, so that two of other values would be mixed up.
    """
    state = module.state_dict()
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    weights = {
        name: [list(value.shape), str(value.dtype), first.setdefault((value.data_ptr(), tuple(value.shape)), name)]
        for name, value in state.items()
    }
    others = {name: value for name, value in module.named_buffers() if name not in state}
    for path, part in module.named_modules():
        others |= {f"{path}.{key}": value for key, value in vars(part).items() if isinstance(value, torch.Tensor)}
    return {"weights": weights, "others": weights_digest(others)}


def weights_digest(weights: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 (hex) of the names, shapes and values of weights."""
    digest = hashlib.sha256()
    add_weights(digest, "", weights)
    return digest.hexdigest()


def add_weights(digest: Any, component: str, weights: Mapping[str, torch.Tensor]) -> None:
    """Hash the names, shapes and values of weights, whatever their order."""
    for name in sorted(weights):
        values = weights[name].contiguous()
        digest.update(f"{component}.{name}={tuple(values.shape)}\n".encode())
        digest.update(values.numpy().data)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
