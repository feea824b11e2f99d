"""Bundles come and go while others are served: loaded, swapped, unloaded, evicted, woken, and loaded again.

Owns the one lock of loading; which state follows which is ``catalog.py``'s. Knows no wire. One bundle is
loaded at a time, since that takes all cores, and so that two loads of one name follow each other.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mezzotint.engines.bundle import Loading
from mezzotint.engines.errors import BundleError, LoadingOff, MezzotintError, OverMemoryBudget, Unavailable
from mezzotint.server.catalog import Bundle, Catalog, State, Version
from mezzotint.server.health import Failures
from mezzotint.server.leaving import Leaving
from mezzotint.server.loading import Loader
from mezzotint.server.repository import ModelRepository
from mezzotint.server.room import choose_victims, room_in_ms
from mezzotint.server.served import Served
from mezzotint.server.tasks import Tasks

logger = logging.getLogger(__name__)

_MAX_WAITING = 256  # requests for one bundle that is being loaded; each holds its message


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle that is served now, and the digest of the one that it replaced; empty where there was none."""

    version: Version
    replaced_digest: str


async def _nothing() -> None:
    pass


class Lifecycle:
    """Moves the versions of a catalog from state to state.

    Args:
        catalog: whose versions; nobody else moves them.
        loader: makes what is served; without one nothing is ever loaded.
        repository: what clients may have loaded; nothing by default.
        max_failures: failed calls of one stage in a row after which a model is loaded again; 0 is any number.
        on_change: is awaited whenever a name may have begun or ceased to take requests.
    """

    def __init__(
        self,
        catalog: Catalog,
        loader: Loader | None = None,
        repository: ModelRepository | None = None,
        *,
        max_failures: int = 3,
        on_change: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        self.catalog = catalog
        self._loader = loader
        self._repository = repository or ModelRepository(None)
        self._max_failures = max_failures
        self._on_change = on_change
        self._lock = asyncio.Lock()
        self._tasks = Tasks()
        self._waking: dict[Version, asyncio.Task[None]] = {}
        self._leaving = Leaving(catalog, loader, on_change)
        self._closing = False

    @property
    def loadable(self) -> tuple[str, ...]:
        """The names under which bundles lie in the repository."""
        return self._repository.names

    async def find(self, name: str) -> Served:
        """Return what answers the requests for a name; submit to it before anything else is awaited.

        An evicted bundle is loaded first, for which this waits.

        Raises:
            InvalidRequest: the name is empty and there are several.
            ModelNotFound: there is none of that name.
            Unavailable: it is not loaded now, or too many wait for it.
            OverMemoryBudget: it was evicted and there is no room.
        """
        while (version := self.catalog.version(name)).state in (State.EVICTED, State.WAKING):
            if version.num_waiting >= _MAX_WAITING:
                raise Unavailable(f"model {version.name}: {_MAX_WAITING} requests wait until it is loaded; try later")
            if version.state is State.EVICTED:
                version.state = State.WAKING
                self._waking[version] = self._tasks.begin(self._wake(version))
            version.num_waiting += 1
            try:
                await asyncio.shield(self._waking[version])
            finally:
                version.num_waiting -= 1
        return self.catalog.find(name)

    async def start(self, folders: Sequence[Path]) -> None:
        """Load the bundles that the server is started with; whoever waits for it no more does not stop it.

        Raises:
            BundleError: one cannot be loaded, or they do not fit together.
            Unavailable: the server is stopping; what is not loaded then is not begun.
        """
        await asyncio.shield(self._tasks.begin(self._start(folders)))

    async def load(self, folder_name: str) -> Loaded:
        """Load a bundle of the repository and serve it under the name in its manifest.

        Where that name is served, the new version is loaded beside the old one, which finishes what it has accepted.
        A caller who goes away does not stop it.

        Raises:
            LoadingOff: the server has no repository.
            InvalidRequest: what was given is no folder's name.
            ModelNotFound: the repository has no such bundle.
            BundleError: it cannot be loaded.
            OverMemoryBudget: there is no room, whatever idle ones leave.
            Unavailable: the server is stopping.
        """
        folder = await asyncio.to_thread(self._repository.find, folder_name)
        return await asyncio.shield(self._tasks.begin(self._load(folder)))

    async def unload(self, name: str) -> None:
        """Take a model out, and return when it has finished what it accepted and its memory is given back.

        Raises:
            LoadingOff: the server has no repository, from which it could be loaded again.
            InvalidRequest: the name is empty.
            ModelNotFound: there is none of that name.
        """
        self._repository.check_open()
        await asyncio.shield(self._tasks.begin(self._unload(name)))

    async def close(self, drain_seconds: float) -> bool:
        """Finish what was accepted for so long, end the rest, and free everything; returns whether all was finished.

        A load that is under way is waited for no longer than that either; it ends by itself, and serves nobody.
        """
        self._closing, until = True, time.monotonic() + drain_seconds
        cores, versions = self.catalog.cores, self.catalog.versions
        with ThreadPoolExecutor(max(1, len(cores)), "mezzotint-drain") as pool:  # of their own: none may wait to begin
            loop = asyncio.get_running_loop()
            drained = await asyncio.gather(*(loop.run_in_executor(pool, core.drain, drain_seconds) for core in cores))
        await self._leaving.free(versions, State.UNLOADING)
        await self._tasks.all(max(0.0, until - time.monotonic()))
        await self._leaving.all()
        return all(drained)

    # Tasks, which outlive those who asked for them

    async def _start(self, folders: Sequence[Path]) -> None:
        async with self._lock:
            loader = self._open_loader()
            bundles = [await asyncio.to_thread(loader.read, folder) for folder in folders]
            parts = await asyncio.to_thread(loader.plan, bundles)
            for bundle, loading in zip(bundles, parts, strict=True):
                self._open_loader()
                await self._fill(self.catalog.begin(bundle.manifest.name, bundle), bundle, loading)

    async def _load(self, folder: Path) -> Loaded:
        async with self._lock:
            bundle = await asyncio.to_thread(self._open_loader().read, folder)
            version = self.catalog.begin(bundle.manifest.name, bundle)
            replaced = self.catalog.version(version.name)
            digest = "" if replaced is version else replaced.digest
            try:
                await self._fill(version, bundle, await self._place(bundle))
            except BaseException:
                self.catalog.discard(version)
                raise
            return Loaded(version, digest)

    async def _unload(self, name: str) -> None:
        async with self._lock:
            leaving = self._leaving.retire(self.catalog.unload(name))
        await self._on_change()
        await leaving

    async def _wake(self, version: Version) -> None:
        """Load an evicted version again, unless another took its name while this waited for the lock."""
        async with self._lock:
            try:
                if self.catalog.is_current(version):
                    await self._refill(version)
            finally:
                del self._waking[version]

    def _unhealthy(self, version: Version, failures: Failures) -> None:
        if version.failures is failures and version.state is State.READY:  # else it is on its way out
            self._tasks.begin(self._reload(version, failures))

    async def _reload(self, version: Version, failures: Failures) -> None:
        """Close a version whose engine fails and load it again; but only once between two pictures that it makes."""
        failed = f"model {version.name}: its engine failed {failures.max_in_a_row} times in a row"
        if version.was_reloaded and not failures.has_served:
            failed += ", and again after it had been loaded anew; the server's log says why"
            logger.error("%s", failed)
            await self._leaving.free([version], State.FAILED, failed)
            return
        logger.error("%s; it is loaded again", failed)
        version.was_reloaded = True
        await self._leaving.free(
            [version], State.LOADING, f"{failed} and it is being loaded again; send the request once more"
        )
        async with self._lock:
            if self.catalog.is_current(version) and version.state is State.LOADING:
                await self._refill(version)

    # What they are made of; only who holds the lock may load

    async def _refill(self, version: Version) -> None:
        """Load a version from its folder once more; where that fails, it stays away until it is loaded by hand."""
        try:
            if version.bundle is None:
                raise BundleError(f"model {version.name}: was not loaded from a folder; start the server again")
            bundle = await asyncio.to_thread(self._open_loader().read, version.bundle.folder)
            if bundle.manifest.name != version.name:
                raise BundleError(f"{bundle.folder}: holds {bundle.manifest.name} by now; put {version.name} there")
            await self._fill(version, bundle, await self._place(bundle))
        except OverMemoryBudget:
            await self._leaving.free([version], State.EVICTED)  # the next request tries it again
            raise
        except Exception as error:
            logger.error("model %s could not be loaded again", version.name, exc_info=error)
            why = str(error) if isinstance(error, MezzotintError) else "the server's log says why"
            await self._leaving.free([version], State.FAILED, f"model {version.name} could not be loaded again: {why}")
            raise

    async def _place(self, bundle: Bundle) -> Loading:
        """Return a bundle's part of the memory, made free by evicting idle ones. Raises OverMemoryBudget."""
        loader = self._open_loader()
        while (missing := await asyncio.to_thread(loader.missing_bytes, bundle)) > 0:
            idle = [version for version in self.catalog.idle() if version.name != bundle.manifest.name]
            victims = choose_victims(missing, idle)
            if victims is not None:
                names = ", ".join(version.name for version in victims)
                logger.info("evicted to make room for %s: %s", bundle.manifest.name, names)
                why = "its memory was needed; the next request loads it again"
                await self._leaving.free(victims, State.EVICTED, why)
            elif self._leaving and choose_victims(missing, [*idle, *self.catalog.leaving]) is not None:
                await self._leaving.first()
            elif not self._shrink_replaced(bundle.manifest.name, missing):
                error = loader.refusal(bundle, sum(version.held_bytes for version in idle))
                others = [version for version in self.catalog.versions if version.name != bundle.manifest.name]
                error.retry_after_ms = room_in_ms(missing, others)
                raise error
        (loading,) = await asyncio.to_thread(loader.plan, [bundle])
        return loading

    def _shrink_replaced(self, name: str, missing_bytes: int) -> bool:
        """Have the version of a name hold fewer row counts until another takes its place; returns whether it can."""
        version = self.catalog.version(name) if name in self.catalog.names else None
        if version is None or version.loading is None or version.is_closing:
            return False
        smaller = self._open_loader().shrink(version.loading, missing_bytes)
        version.loading = smaller or version.loading
        return smaller is not None

    async def _fill(self, version: Version, bundle: Bundle, loading: Loading) -> None:
        """Load a version's bundle and answer its name's requests with it from then on."""
        loop, began = asyncio.get_running_loop(), time.monotonic()

        def on_unhealthy() -> None:  # in the engine's thread
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._unhealthy, version, failures)

        failures = Failures(self._max_failures, on_unhealthy, version.failures)
        version.bundle, version.loading, version.failures = bundle, loading, failures
        try:
            core = await asyncio.to_thread(self._open_loader().load, bundle, loading, failures)
        except BaseException:
            await self._leaving.free([version], version.state, version.reason)
            raise
        replaced = self.catalog.serve(version, core)
        if self._closing:
            await self._leaving.free([version], State.UNLOADING)
            raise _stopping()
        if replaced is not None:
            self._leaving.retire(replaced)
        seconds = time.monotonic() - began
        logger.info("model %s, version %s: loaded in %.1f s", version.name, version.digest[:12], seconds)
        await self._on_change()

    def _open_loader(self) -> Loader:
        """Return the loader. Raises Unavailable where the server is stopping, and LoadingOff where it has none."""
        if self._closing:
            raise _stopping()
        if self._loader is None:
            raise LoadingOff("this server was made without a loader; start it with `mezzotint serve`")
        return self._loader


def _stopping() -> Unavailable:
    return Unavailable("the server is stopping; load the bundle on another")
