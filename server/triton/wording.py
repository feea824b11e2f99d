"""What the two models say to each other, and error codes. Knows Triton's words, not its module."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

import grpc
import numpy as np

from mezzotint.server.kserve.tensors import OUTPUTS, Array

TICKET = "mezzotint_ticket"
"""The parameter under which the model of one response names its request to the streaming one."""

TAKE_BACK = "mezzotint_take_back"
"""The parameter that takes a request back by its ticket: requests inside Triton cannot be cancelled."""

CODES: Mapping[grpc.StatusCode, str] = MappingProxyType(
    {
        grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARG",
        grpc.StatusCode.NOT_FOUND: "NOT_FOUND",
        grpc.StatusCode.ALREADY_EXISTS: "ALREADY_EXISTS",
        grpc.StatusCode.FAILED_PRECONDITION: "UNSUPPORTED",
        grpc.StatusCode.PERMISSION_DENIED: "UNSUPPORTED",
        grpc.StatusCode.RESOURCE_EXHAUSTED: "UNAVAILABLE",
        grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
        grpc.StatusCode.DEADLINE_EXCEEDED: "UNAVAILABLE",
        grpc.StatusCode.CANCELLED: "CANCELLED",
    }
)
"""Triton's error codes by gRPC's; it has fewer, and what is not here is INTERNAL."""

INTERNAL, UNAVAILABLE = "INTERNAL", "UNAVAILABLE"

_ORDER = "IMAGE_INDEX"


def with_code(code: str, message: str) -> str:
    """Return an error's text for the twin, which gets no code: Triton says INTERNAL of all errors inside it."""
    return f"{code}: {message}"


def code_of(text: str) -> tuple[str, str]:
    """Return the code and the message of such a text; one of Triton's own says that our other model is away."""
    code, _, message = text.partition(": ")
    return (code, message) if code in {*CODES.values(), INTERNAL} else (UNAVAILABLE, text)


def names_to_ask(wanted: Collection[str]) -> list[str]:
    """Return the outputs to ask the streaming model for, so that its responses can be joined."""
    return [*wanted, *({_ORDER} - set(wanted))]


def joined(parts: Sequence[Mapping[str, Array]], wanted: Collection[str]) -> dict[str, Array]:
    """Return the wanted outputs of a stream's pictures as those of one response, the pictures in their order."""
    parts = sorted(parts, key=lambda part: int(part[_ORDER][0]))
    names = (tensor.name for tensor in OUTPUTS)
    return {
        name: np.concatenate([part[name] for part in parts])
        for name in names
        if name in wanted and all(name in part for part in parts)
    }
