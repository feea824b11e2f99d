"""gRPC's context of a call, as far as our service asks for it, where the call came through Serve's proxy."""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mezzotint.server.ray.door import SECONDS
from mezzotint.server.status import Refusal

REPLICA = "replica"
"""The trailing metadata that names the process which answered, as HOST:PID."""


def process_name() -> str:
    """Return this process's name in the cluster, HOST:PID."""
    return f"{socket.gethostname()}:{os.getpid()}"


class ReplicaContext:
    """A call's context in a replica.

    Args:
        serves: Serve's own, which goes back to the proxy with every message.
    """

    def __init__(self, serves: Any) -> None:
        self._serves = serves
        self._metadata = tuple(serves.invocation_metadata())
        seconds = dict(self._metadata).get(SECONDS)
        self._until = None if seconds is None else time.monotonic() + float(seconds)

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Return the client's metadata."""
        return self._metadata

    def time_remaining(self) -> float | None:
        """Return the seconds until the client's deadline, less what the way here took; None is any time."""
        return None if self._until is None else self._until - time.monotonic()

    def peer(self) -> str:
        """Return the client's address."""
        return str(self._serves.peer())

    def auth_context(self) -> Mapping[str, Any]:
        """Return what the client's certificate says; the proxy speaks no TLS of ours."""
        return dict(self._serves.auth_context())

    async def send_initial_metadata(self, metadata: Sequence[tuple[str, str]]) -> None:
        """Send nothing, since the proxy has; name this replica, should the call end well."""
        self._trail(())

    def refuse(self, refused: Refusal) -> None:
        """Have the call end with a status, which goes back to the proxy with the next message."""
        self._serves.set_code(refused.code)
        self._serves.set_details(refused.message)
        self._trail(refused.metadata)

    def _trail(self, metadata: Sequence[tuple[str, Any]]) -> None:
        self._serves.set_trailing_metadata([*metadata, (REPLICA, process_name())])
