"""Versions on their way out: they finish what they have accepted, are closed, and give their memory back.

``lifecycle.py`` says which and when. Knows no wire.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from mezzotint.engines.bundle import Loading
from mezzotint.server.catalog import Catalog, State, Version
from mezzotint.server.loading import Loader
from mezzotint.server.served import Served
from mezzotint.server.tasks import Tasks

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.02


class Leaving:
    """The versions of a catalog that are on their way out.

    Args:
        catalog: whose versions.
        loader: gets their memory back; None where nothing was loaded.
        on_change: is awaited whenever a name may have ceased to take requests.
    """

    def __init__(self, catalog: Catalog, loader: Loader | None, on_change: Callable[[], Awaitable[None]]) -> None:
        self._catalog = catalog
        self._loader = loader
        self._on_change = on_change
        self._tasks = Tasks()

    def __bool__(self) -> bool:
        return bool(self._tasks)

    async def first(self) -> None:
        """Wait until memory has been given back; something must be on its way."""
        await self._tasks.first()

    async def all(self) -> None:
        """Wait until all that are on their way now have left."""
        await self._tasks.all()

    def retire(self, version: Version) -> asyncio.Task[None]:
        """Let a version finish what it has accepted, and give its memory back; whoever waits for that may await it."""
        return self._tasks.begin(self._leave(version))

    async def free(self, versions: Sequence[Version], state: State, reason: str = "") -> None:
        """Have versions answer no requests, all from now on, end what is open, and give their memory back."""
        stopped = {version: self._catalog.stop(version, state, reason) for version in versions}
        await self._tasks.begin(self._give_back(stopped, reason))

    async def _leave(self, version: Version) -> None:
        while version.core is not None and version.core.num_open:  # nobody can find it any more
            await asyncio.sleep(_POLL_SECONDS)
        await self.free([version], State.UNLOADING)
        self._catalog.discard(version)
        logger.info("model %s, version %s: unloaded", version.name, version.digest[:12])

    async def _give_back(self, stopped: Mapping[Version, tuple[Served | None, Loading | None]], reason: str) -> None:
        await self._on_change()
        for version, (core, loading) in stopped.items():
            if core is None and loading is None:
                continue
            try:
                if core is not None:
                    await asyncio.to_thread(core.close, *filter(None, [reason]))
            except Exception:
                logger.exception("model %s could not be closed; its memory counts as free", version.name)
            finally:
                if loading is not None and self._loader is not None:
                    await asyncio.to_thread(self._loader.release, loading)
                self._catalog.freed(version)
