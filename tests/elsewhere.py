"""A device of its own in tests: arrays of array_api_strict that no numpy call, ``float`` or ``if`` can read by itself.

``device.to_host`` alone may copy them; whatever else tries ends in an error, as it would cost a wait on a GPU.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines import device

DEVICE = array_api_strict.Device("device1")
_READS = ("__array__", "__buffer__", "__bool__", "__complex__", "__dlpack__", "__float__", "__index__", "__int__")


class Reads:
    """The shapes of all arrays that ``device`` copied: ``read`` by the host, and ``given`` to the device."""

    def __init__(self) -> None:
        self.read: list[tuple[int, ...]] = []
        self.given: list[tuple[int, ...]] = []
        self._allowed = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Let arrays be read inside."""
        before, self._allowed = self._allowed, True
        try:
            yield
        finally:
            self._allowed = before

    def guard(self, name: str, read: Any) -> Any:
        """Return a method of arrays that fails unless reads are allowed."""

        def guarded(array: Any, *args: Any, **named: Any) -> Any:
            assert self._allowed or array.device != DEVICE, f"{name} of {array.shape} outside of device.to_host"
            return read(array, *args, **named)

        return guarded


def watch(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """Watch every copy of the device's arrays, and fail those that ``device`` does not make."""
    seen = Reads()
    kind = type(elsewhere(0.0))
    for name in _READS:
        monkeypatch.setattr(kind, name, seen.guard(name, getattr(kind, name)))
    to_host, from_host = device.to_host, device.from_host

    def counted(array: Any) -> Any:
        if device.xp(array) is array_api_strict:
            seen.read.append(array.shape)
        with seen.allowed():
            return to_host(array)

    def given(array: Any, like: Any) -> Any:
        if device.xp(like) is array_api_strict:
            seen.given.append(array.shape)
        return from_host(array, like)

    monkeypatch.setattr(device, "to_host", counted)
    monkeypatch.setattr(device, "from_host", given)
    return seen


def elsewhere(array: Any) -> Any:
    """Return a host array on the device."""
    return array_api_strict.asarray(array, device=DEVICE)


class ElsewhereEngine:
    """A host engine on the device: it takes arrays of host and device, and gives those of the device."""

    def __init__(self, engine: Any, reads: Reads) -> None:
        self.spec, self.device, self.row_counts = engine.spec, "ELSEWHERE", engine.row_counts
        self.like = elsewhere(0.0)
        self.given: set[Any] = set()
        self._engine = engine
        self._reads = reads

    def run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        with self._reads.allowed():
            host = {name: np.from_dlpack(array) for name, array in inputs.items()}
        self.given |= {device.xp(array) for array in inputs.values()}
        return {name: elsewhere(array) for name, array in self._engine.run(host).items()}

    def close(self) -> None:
        self._engine.close()
