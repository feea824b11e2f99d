"""One replica of a deployment: a server without a port of its own, whose calls come from Serve's proxy.

Serve calls the methods by the contract's names. Knows Serve by the names of its hooks alone and imports nothing of it.
"""

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from grpc_health.v1 import health_pb2

from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.errors import BundleError, Unavailable
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.server.app import load_served
from mezzotint.server.catalog import Catalog, State
from mezzotint.server.config import ServerConfig
from mezzotint.server.convert import message_of
from mezzotint.server.costs import EngineCosts
from mezzotint.server.instances import instance_options
from mezzotint.server.intake import Intake, Refused
from mezzotint.server.lifecycle import Lifecycle
from mezzotint.server.loading import BundleLoader, Loader
from mezzotint.server.logs import set_up
from mezzotint.server.observer import Observer
from mezzotint.server.ray.context import ReplicaContext, process_name
from mezzotint.server.ray.loads import ROW_SECONDS, SECONDS_LEFT, SERIAL
from mezzotint.server.service import Service

logger = logging.getLogger(__name__)

BUNDLE, DIGEST = "bundle", "digest"
"""What Serve's ``user_config`` holds: the bundle's folder on every node, and the digest of its manifest."""


class Replica:
    """Answers the contract's calls for one bundle.

    Args:
        config: its limits; where to listen is the proxy's.
        load: how to load the bundle.
        loader: loads it instead.
    """

    def __init__(self, config: ServerConfig, load: LoadOptions, *, loader: Loader | None = None) -> None:
        set_up("info", "text")  # to stderr, which Ray collects
        observer = Observer()
        loads = instance_options(load, config.core)
        self._loader = loader or BundleLoader(
            loads,
            lambda folder, loading, failures: load_served(folder, loads, config.core, loading, observer, failures),
        )
        self._catalog = Catalog()
        self._lifecycle = Lifecycle(self._catalog, self._loader, max_failures=config.lifecycle.max_failures)
        intake = Intake(self._lifecycle, observer, config.access)
        self._service = Service(self._lifecycle, intake, config.access.max_request_bytes)
        self._serials = itertools.count()

    # The contract

    async def Generate(self, message: pb.GenerateRequest, grpc_context: Any) -> AsyncIterator[pb.GenerateEvent]:
        """Stream a request's events; where it is refused, one that says nothing carries the status."""
        context: Any = ReplicaContext(grpc_context)
        try:
            async with aclosing(await self._service.begin(message, context)) as events:
                async for event in events:
                    yield message_of(event)
        except Refused as error:
            context.refuse(error.refusal)
            yield pb.GenerateEvent()

    async def ListModels(self, message: pb.ListModelsRequest, grpc_context: Any) -> pb.ListModelsResponse:
        """List this replica's bundles."""
        context: Any = ReplicaContext(grpc_context)
        return await self._service.list_models(b"", context)

    async def Check(self, message: health_pb2.HealthCheckRequest) -> health_pb2.HealthCheckResponse:
        """Say whether a bundle, or this replica as a whole, takes requests."""
        names = [message.service] if self._catalog.takes_requests(message.service) else self._catalog.names
        serves = bool(names) and all(map(self._catalog.takes_requests, names))
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if serves else status.NOT_SERVING)

    # Serve's hooks

    async def reconfigure(self, user_config: Mapping[str, str]) -> None:
        """Serve a bundle, in the place of the one that is served; that one finishes what it has accepted.

        Raises:
            BundleError: it cannot be loaded, is not the one that was deployed, or has another name than the one here.
        """
        folder = Path(user_config[BUNDLE])
        bundle = await asyncio.to_thread(self._loader.read, folder)
        name, (current, *_) = bundle.manifest.name, (*self._catalog.names, "")
        if bundle.digest != user_config[DIGEST]:
            raise BundleError(f"{folder}: is not the bundle that was deployed; put the same one on every node")
        if current not in ("", name):
            raise BundleError(f"{folder}: holds {name}, and {current} is served here; deploy it on its own")
        if not current or self._catalog.version(current).digest != bundle.digest:
            await self._lifecycle.start([folder])
        logger.info("replica %s: serves %s, version %s", process_name(), name, bundle.digest[:12])

    async def check_health(self) -> None:
        """Have Serve start another replica where this one will serve no more. Raises Unavailable."""
        for version in self._catalog.versions:
            if version.state is State.FAILED:
                raise Unavailable(version.reason)
        if not self._catalog.is_alive:
            raise Unavailable(f"replica {process_name()}: an engine loop has ended")

    async def record_routing_stats(self) -> dict[str, float]:
        """Tell routers how much there is to do here (``loads.py``)."""
        cores = self._catalog.cores
        return {
            SERIAL: next(self._serials),
            SECONDS_LEFT: sum(core.seconds_left for core in cores),
            ROW_SECONDS: EngineCosts(cores[0].model.manifest).row_seconds if cores else 0.0,
        }
