"""A server with a model repository, over a real socket, on fake engines."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mezzotint import AsyncClient, MezzotintClientError
from mezzotint.proto.results import Result
from mezzotint.server.access import AccessConfig
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import KserveConfig, LifecycleConfig
from tests.fakes import FakeEngine
from tests.server.bundles import FakeLoader

SERVING = health_pb2.HealthCheckResponse.SERVING


@dataclass
class Host:
    """A server with a model repository."""

    server: Server
    loader: FakeLoader
    root: Path
    client: AsyncClient
    channel: grpc.aio.Channel
    target: str

    async def serves(self, name: str) -> bool:
        """Return what the health service says of a model; the empty name is the server."""
        request = health_pb2.HealthCheckRequest(service=name)
        return (await health_pb2_grpc.HealthStub(self.channel).Check(request)).status == SERVING

    async def states(self) -> dict[str, str]:
        return {model.name: model.state for model in await self.client.models()}

    def unet(self, folder: str) -> FakeEngine:
        return self.loader.unets[folder][-1]

    def ask(self, model: str = "", **options: Any) -> "asyncio.Task[Result]":
        return asyncio.create_task(self.client.generate("a cat", **{"model": model, "steps": 2, "seed": 1} | options))


@asynccontextmanager
async def hosting(
    root: Path,
    *folders: str,
    loader: FakeLoader | None = None,
    access: AccessConfig | None = None,
    kserve: KserveConfig | None = None,
) -> AsyncIterator[Host]:
    """Serve these bundles of a repository, which also has others."""
    loader = loader or FakeLoader()
    server = Server(Catalog(), access=access, loader=loader, lifecycle=LifecycleConfig(root), kserve=kserve)
    await server.lifecycle.start([root / folder for folder in folders])
    target = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    await server.set_ready(True)
    async with AsyncClient(target) as client, grpc.aio.insecure_channel(target) as channel:
        yield Host(server, loader, root, client, channel, target)
    loader.gate.set()
    for unet in [unet for unets in loader.unets.values() for unet in unets]:
        unet.release()
    await server.stop(5.0)
    assert loader.held == []


async def refusal_of(call: Awaitable[Any]) -> MezzotintClientError:
    with pytest.raises(MezzotintClientError) as refusal:
        await call
    return refusal.value
