"""A server of a real bundle in this process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.model import Model
from mezzotint.server.app import Server, load_core
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig


@asynccontextmanager
async def serving(
    bundle: Path, config: CoreConfig | None = None, load: LoadOptions | None = None
) -> AsyncIterator[tuple[Model, str]]:
    """Serve a bundle; gives its model and the server's address."""
    load = load or LoadOptions(devices={}, cache=False)
    core = await asyncio.to_thread(load_core, bundle, load, config or CoreConfig())
    server = Server(Catalog([core.model.name]))
    server.catalog.add(core)
    port = await server.start("127.0.0.1", 0)
    yield core.model, f"127.0.0.1:{port}"
    await server.stop(5.0)
