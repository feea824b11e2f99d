"""Puts together what watches a server: metrics with their HTTP port, and traces. Imports only what is switched on."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from mezzotint.engines.errors import MezzotintError
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import WatchConfig
from mezzotint.server.kserve.statistics import Statistics
from mezzotint.server.observer import Observer, Several

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Watch:
    """What watches one server; ``statistics`` are there whatever is switched on.

    Args:
        config: what is switched on.
        catalog: the server's bundles.

    Raises:
        MezzotintError: traces are wanted, and the extra that makes them is not installed.
    """

    def __init__(self, config: WatchConfig, catalog: Catalog) -> None:
        self._config = config
        self._catalog = catalog
        self._stack = ExitStack()
        self.statistics = Statistics()
        observers: list[Observer] = [self.statistics]
        if config.metrics is not None:
            from mezzotint.server.metrics import Metrics

            self._metrics = Metrics(lambda: catalog.cores)
            observers.append(self._metrics)
        if wants_traces(config.otlp_endpoint, os.environ):
            observers.append(self._traces())
        self.observer: Observer = observers[0] if len(observers) == 1 else Several(observers)

    def listen(self, is_ready: Callable[[], bool]) -> int | None:
        """Open the HTTP port, if there is to be one, and return it. Raises Unavailable where it is taken."""
        if self._config.metrics is None:
            return None
        from mezzotint.server.probes import Probes

        probes = Probes(self._config.metrics, self._metrics, is_live=lambda: self._catalog.is_alive, is_ready=is_ready)
        self._stack.callback(probes.close)
        return probes.port

    def close(self) -> None:
        """Close the port and hand over what traces are left."""
        self._stack.close()

    def _traces(self) -> Observer:
        try:
            from mezzotint.server.traces import Traces, otlp
        except ImportError as error:
            raise MezzotintError(
                f"traces need {error.name}, which is not installed; run `pip install 'mezzotint[otel]'`, or leave "
                f"`--otlp-endpoint` and {_ENDPOINTS[1]} out"
            ) from None
        traces = Traces(otlp(self._config.otlp_endpoint))
        self._stack.callback(traces.close)
        return traces


@contextmanager
def watching(config: WatchConfig, catalog: Catalog) -> Iterator[Watch]:
    """Watch a server as long as the block runs. Raises what ``Watch`` raises."""
    watch = Watch(config, catalog)
    try:
        yield watch
    finally:
        watch.close()


def wants_traces(endpoint: str, environ: Mapping[str, str]) -> bool:
    """Whether there is somewhere for traces to go: by the option, or by OpenTelemetry's own environment variables."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return bool(endpoint or any(environ.get(name) for name in _ENDPOINTS))
