import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from mezzotint import AsyncClient
from mezzotint.engines.model import EngineKey, Model
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.access import AccessConfig
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig, KserveConfig, WatchConfig
from mezzotint.server.core import Core
from mezzotint.server.service import SERVICE
from mezzotint.server.watching import watching
from tests.fakes import UNET, FakeEngine, fake_model
from tests.server.bundles import write_bundle
from tests.server.tokens_file import TokensFile


@dataclass
class Running:
    """A server in this process, over a real socket, on fake engines."""

    server: Server
    core: Core
    engines: dict[EngineKey, FakeEngine]
    target: str
    client: AsyncClient
    channel: grpc.aio.Channel
    metrics_port: int | None

    @property
    def unet(self) -> FakeEngine:
        return self.engines[UNET]


Start = Callable[..., Awaitable[Running]]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[tuple[Model, dict[EngineKey, FakeEngine]]]:
    return fake_model(tmp_path)


@asynccontextmanager
async def running(
    folder: Path,
    config: CoreConfig,
    watch: WatchConfig,
    access: AccessConfig | None = None,
    kserve: KserveConfig | None = None,
    **bundle: bool,
) -> AsyncIterator[Running]:
    model, engines = fake_model(folder, **bundle)
    model.warm_up()
    for engine in engines.values():
        engine.calls.clear()
        while engine.entered.acquire(blocking=False):
            pass
    catalog = Catalog([model.name])
    with watching(watch, catalog) as watched:
        server = Server(catalog, watched.observer, access, kserve=kserve, statistics=watched.statistics)
        core = Core(model, config, observer=watched.observer)
        catalog.add(core)
        target = f"127.0.0.1:{await server.start('127.0.0.1', 0)}"
        metrics_port = watched.listen(lambda: server.is_ready)
        await server.set_ready(True)
        async with AsyncClient(target) as client, grpc.aio.insecure_channel(target) as channel:
            yield Running(server, core, engines, target, client, channel, metrics_port)
        for engine in engines.values():
            engine.release()
        await server.stop(5.0)


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start servers with limits, a bundle, or a front door, of the test's own."""
    async with AsyncExitStack() as stack:

        async def begin(
            *,
            access: AccessConfig | None = None,
            step_cache: bool = False,
            cut_decoder: bool = False,
            tiny_decoder: bool = False,
            safety_checker: bool = False,
            watch: WatchConfig | None = None,
            kserve: KserveConfig | None = None,
            **limits: Any,
        ) -> Running:
            bundle = {"step_cache": step_cache, "cut_decoder": cut_decoder, "tiny_decoder": tiny_decoder}
            bundle["safety_checker"] = safety_checker
            config = CoreConfig(**limits)
            options = (watch or WatchConfig(), access, kserve)
            return await stack.enter_async_context(running(tmp_path, config, *options, **bundle))

        yield begin


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model repository of two versions of one model, and of three other models."""
    write_bundle(tmp_path, "one", name="model", sampler="ddim")
    write_bundle(tmp_path, "two", name="model", sampler="euler_a")
    for name in ("a", "b", "c"):
        write_bundle(tmp_path, name)
    return tmp_path


@pytest.fixture
def tokens(tmp_path: Path) -> TokensFile:
    return TokensFile(tmp_path / "tokens")


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, refusals too."""
    caplog.set_level(logging.INFO, "mezzotint")
    return caplog


@pytest.fixture
async def served(start: Start) -> Running:
    """A server with the usual limits."""
    return await start()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.005)


async def entered(served: Running) -> None:
    """Wait until the UNet's next call runs."""
    assert await asyncio.to_thread(served.unet.entered.acquire, timeout=10)


async def raw(served: Running, data: bytes, **options: Any) -> list[pb.GenerateEvent]:
    call = served.channel.unary_stream(
        f"/{SERVICE}/Generate",
        request_serializer=lambda message: message,
        response_deserializer=pb.GenerateEvent.FromString,
    )
    return [event async for event in call(data, **options)]


async def refused(served: Running, data: bytes) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await raw(served, data)
    return refusal.value
