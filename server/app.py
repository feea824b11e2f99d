"""The server process: binds its port, loads bundles, serves until a signal, drains and stops."""

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mezzotint.engines.bundle import Loading, LoadOptions, curve_files, opening_bundle, plan_loading
from mezzotint.engines.errors import BundleError, Unavailable
from mezzotint.engines.manifest import read_manifest
from mezzotint.engines.sizes import own_size
from mezzotint.server.access import AccessConfig
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import CoreConfig, KserveConfig, LifecycleConfig, ServerConfig, host_port
from mezzotint.server.core import Core
from mezzotint.server.flagged import check_bundle
from mezzotint.server.front_door import FrontDoor
from mezzotint.server.health import Failures
from mezzotint.server.health_service import HealthService
from mezzotint.server.instances import Instances, check_devices, instance_options
from mezzotint.server.intake import Intake
from mezzotint.server.kserve.service import SERVICE as KSERVE
from mezzotint.server.kserve.service import KserveService
from mezzotint.server.kserve.statistics import Statistics
from mezzotint.server.learn import Learning, Quiet
from mezzotint.server.lifecycle import Lifecycle
from mezzotint.server.loading import BundleLoader, Loader
from mezzotint.server.observer import Observer
from mezzotint.server.reflected import reflected
from mezzotint.server.repository import ModelRepository
from mezzotint.server.served import Served
from mezzotint.server.service import SERVICE, Service
from mezzotint.server.watching import watching

logger = logging.getLogger(__name__)

_STOP_SECONDS = 2.0
_SERVING, _NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
_SMALL_BYTES = 256 << 20  # engines up to this size are compiled two at a time; with larger ones it gains nothing
_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # else a second server on a port would share it without a word
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class Server:
    """A gRPC server with health and reflection over a catalog of bundles.

    Args:
        catalog: what it serves.
        observer: hears of its calls.
        access: who may come in, and what a request may ask for.
        loader: loads what comes later; without one that is nothing.
        lifecycle: how bundles come and go.
        kserve: the KServe v2 protocol beside our own; None is without.
        statistics: what that protocol says of each bundle; whoever makes the cores has it observe them.

    Raises:
        CredentialsError: a file of its front door cannot be used.
        MezzotintError: its model repository is no folder.
    """

    def __init__(
        self,
        catalog: Catalog,
        observer: Observer | None = None,
        access: AccessConfig | None = None,
        *,
        loader: Loader | None = None,
        lifecycle: LifecycleConfig | None = None,
        kserve: KserveConfig | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        access, lifecycle = access or AccessConfig(), lifecycle or LifecycleConfig()
        self.catalog = catalog
        self.lifecycle = Lifecycle(
            catalog,
            loader,
            ModelRepository(lifecycle.model_repository),
            max_failures=lifecycle.max_failures,
            on_change=self._say_health,
        )
        self._ready = False
        self._said: set[str] = set()
        self._health = HealthService()
        self._door = FrontDoor(access, observer)
        self._grpc = grpc.aio.server(options=(*_OPTIONS, *self._door.options), interceptors=self._door.interceptors)
        intake = Intake(self.lifecycle, observer or Observer(), access)
        self._grpc.add_generic_rpc_handlers((Service(self.lifecycle, intake, access.max_request_bytes).handler(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        services = [SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME]
        self._kserve: KserveService | None = None
        if kserve is not None:
            told = statistics or Statistics()
            self._kserve = KserveService(
                self.lifecycle, intake, kserve, told, lambda: self.is_ready, access.max_request_bytes
            )
            self._grpc.add_generic_rpc_handlers((self._kserve.handler(),))
            services.append(KSERVE)
        reflection.enable_server_reflection(services, self._grpc, pool=reflected())

    async def start(self, host: str, port: int) -> int:
        """Listen, not yet ready, and return the port. Raises Unavailable where it is taken."""
        await self.set_ready(False)
        address = host_port(host, port)
        try:
            found = self._door.bind(self._grpc, address)
        except RuntimeError:
            raise Unavailable(f"{address}: cannot be listened on; is another server there? use `--port`") from None
        await self._grpc.start()
        return found

    async def set_ready(self, ready: bool) -> None:
        """Say SERVING or NOT_SERVING to those who ask for its health, or for that of a model by its name."""
        self._ready = ready
        await self._say_health()

    async def stop(self, drain_seconds: float) -> bool:
        """Refuse what is new, finish what was accepted, and stop; returns whether all of it was finished."""
        await self.set_ready(False)
        finished = await self.lifecycle.close(drain_seconds)
        await self._grpc.stop(_STOP_SECONDS)
        if self._kserve is not None:
            self._kserve.close()
        return finished

    @property
    def is_ready(self) -> bool:
        """Whether it takes requests: it has started, and one of its models takes them, or it has none."""
        names = self.catalog.names
        return self._ready and (not names or any(map(self.catalog.takes_requests, names)))

    async def _say_health(self) -> None:
        self._said |= set(self.catalog.names)
        serving = {name: self._ready and self.catalog.takes_requests(name) for name in self._said}
        for service, serves in (serving | dict.fromkeys((health.OVERALL_HEALTH, SERVICE), self.is_ready)).items():
            await self._health.set(service, _SERVING if serves else _NOT_SERVING)


async def serve(
    bundles: Sequence[Path],
    config: ServerConfig,
    load: LoadOptions,
    *,
    ready: Callable[[int], None] | None = None,
) -> None:
    """Serve bundles until SIGTERM or SIGINT, then finish what was accepted.

    Args:
        bundles: their folders; each is served under the name in its manifest.
        config: how to listen and stop.
        load: how to load them.
        ready: called with the port as soon as every bundle has run once.

    Raises:
        BundleError: a bundle cannot be loaded, or two have one name.
        DeviceNotFound: a device that was asked for is not there.
        Unavailable: a port is taken.
        MezzotintError: traces are wanted, and the extra that makes them is not installed.
    """
    loads = instance_options(load, config.core)
    catalog = Catalog(_names(bundles, config.lifecycle))
    stopping = asyncio.Event()
    with watching(config.watch, catalog) as watch, _stop_on_signal(stopping):

        def make(folder: Path, loading: Loading, failures: Failures) -> Served:
            return load_served(folder, loads, config.core, loading, watch.observer, failures)

        loader = BundleLoader(loads, make)
        server = Server(
            catalog,
            watch.observer,
            config.access,
            loader=loader,
            lifecycle=config.lifecycle,
            kserve=config.kserve,
            statistics=watch.statistics,
        )
        port = await server.start(config.host, config.port)
        try:
            watch.listen(lambda: server.is_ready)
            if await _is_done(server.lifecycle.start(bundles), stopping):
                await server.set_ready(True)
                logger.info("serving %s on %s", ", ".join(catalog.names) or "no model", host_port(config.host, port))
                if ready is not None:
                    ready(port)
                await stopping.wait()
            logger.info("stopping: finishing what was accepted, for at most %g s", config.drain_seconds)
        finally:
            finished = await server.stop(config.drain_seconds)
            logger.info("stopped%s", "" if finished else "; some requests were ended unfinished")


def load_served(
    bundle: Path,
    loads: Sequence[LoadOptions],
    config: CoreConfig,
    loading: Loading,
    observer: Observer,
    failures: Failures,
) -> Served:
    """Load a bundle as one core, or as one for each of several options. Raises BundleError, DeviceNotFound."""
    check_devices(read_manifest(bundle), loads)
    if len(loads) == 1:
        return load_core(bundle, loads[0], config, loading, observer, failures)
    cores: list[Core] = []
    quiet, all_there = Quiet(), threading.Event()
    quiet.join(all_there.is_set)
    with contextlib.ExitStack() as loaded:
        for i, load in enumerate(loads):
            core = load_core(bundle, load, config, loading.of_instance(i), observer, failures, quiet)
            loaded.callback(core.close)
            cores.append(core)
        loaded.pop_all()
    all_there.set()
    return Instances(cores)


def load_core(
    bundle: Path,
    load: LoadOptions,
    config: CoreConfig,
    loading: Loading | None = None,
    observer: Observer | None = None,
    failures: Failures | None = None,
    quiet: Quiet | None = None,
) -> Core:
    """Load a bundle, run each of its engines once, and start its loop. Raises BundleError, DeviceNotFound."""
    check_bundle(read_manifest(bundle), config.on_flagged)
    loading = loading or plan_loading([bundle], load)
    is_small = sum(engine.file_bytes for engine in loading.wanted[bundle].values()) <= _SMALL_BYTES
    with opening_bundle(bundle, load, loading) as model:
        model.warm_up(at_once=2 if is_small else 1)
    failures = failures or Failures(0, lambda: None)
    failures.own_size = own_size(model.manifest)[:2]
    core = Core(model, config, observer=observer, on_result=failures.note, quiet=quiet)
    files = curve_files(model.digest, model.manifest, load) if load.cache and not load.strict else {}
    core.warm_up_rest(Learning(files, prepares=load.memory_budget is None))
    return core


def _names(bundles: Sequence[Path], config: LifecycleConfig) -> list[str]:
    if not bundles and config.model_repository is None:
        raise BundleError("there is no bundle to serve; name at least one, as `mezzotint compile` wrote it")
    folders: dict[str, Path] = {}
    for bundle in bundles:
        name = read_manifest(bundle).name
        if name in folders:
            raise BundleError(f"{bundle}: is named {name}, as is {folders[name]}; compile one under another name")
        folders[name] = bundle
    return list(folders)


async def _is_done(work: Coroutine[Any, Any, None], stopping: asyncio.Event) -> bool:
    """Do some work unless the server is to stop; returns whether it is done and serving may begin."""
    working, stopped = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    await asyncio.wait((working, stopped), return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        working.result()
    working.cancel()
    stopped.cancel()
    return not stopping.is_set()


@contextlib.contextmanager
def _stop_on_signal(stopping: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stopping.set)
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
