from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest

from mezzotint import AsyncClient
from mezzotint.engines.manifest import Component
from mezzotint.engines.model import Model
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from tests.fakes import FakeEngine, fake_model


@dataclass
class Running:
    """A server in this process, over a real socket, on fake engines."""

    server: Server
    core: Core
    engines: dict[Component, FakeEngine]
    target: str
    client: AsyncClient
    channel: grpc.aio.Channel

    @property
    def unet(self) -> FakeEngine:
        return self.engines[Component.UNET]


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[Model, dict[Component, FakeEngine]]]:
    return fake_model(tmp_path)


@asynccontextmanager
async def running(folder: Path, config: CoreConfig) -> AsyncIterator[Running]:
    model, engines = fake_model(folder)
    model.warm_up()
    for engine in engines.values():
        engine.calls.clear()
        while engine.entered.acquire(blocking=False):
            pass
    server = Server(Catalog([model.name]))
    core = Core(model, config)
    server.catalog.add(core)
    target = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
    await server.set_ready(True)
    async with AsyncClient(target) as client, grpc.aio.insecure_channel(target) as channel:
        yield Running(server, core, engines, target, client, channel)
    for engine in engines.values():
        engine.release()
    await server.stop(5.0)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers with limits of the test's own."""
    async with AsyncExitStack() as stack:

        async def begin(**limits: int) -> Running:
            return await stack.enter_async_context(running(tmp_path, CoreConfig(**limits)))

        yield begin


@pytest.fixture
async def served(start: Start) -> Running:
    """A server with the usual limits."""
    return await start()
