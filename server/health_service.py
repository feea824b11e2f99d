"""The service ``grpc.health.v1.Health``: who takes requests, said to those who ask and to those who watch."""

import asyncio
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2

_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class HealthService(health.aio.HealthServicer):
    """grpc_health's, but that nothing waits for a watcher.

    That writes to a watcher while it holds the lock which a change of status takes: one client that watches and reads
    nothing would keep a server from stopping, and bundles from being loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._statuses: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def set(self, service: str, status: int) -> None:
        """Say a service's status from now on."""
        await super().set(service, status)
        self._statuses[service] = status
        self._changed.set()
        self._changed = asyncio.Event()

    async def Watch(  # noqa: N802 - the protocol's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Write a service's status, and again whenever it is another; a client that is slow may miss some."""
        said: int | None = None
        while True:
            changed = self._changed
            status = self._statuses.get(request.service, _UNKNOWN)
            if status != said:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                said = status
            await changed.wait()
