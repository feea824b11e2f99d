"""Every metric of a server: its name, help, labels and buckets. Nothing else of the server counts for Prometheus.

Each server has a registry of its own. What happens is counted as an observer hears of it; what merely is (images that
wait, caches, the process) is looked up when somebody scrapes.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mezzotint.engines.image import Stage
from mezzotint.server.cache_uses import CacheTotals
from mezzotint.server.observer import Answer, Call, Ending, Observer
from mezzotint.server.served import Served

_CALL_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
ROW_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics(Observer):
    """What a server has done, as Prometheus counts it.

    Args:
        cores: returns the bundles that are served now; asked at each scrape.
    """

    def __init__(self, cores: Callable[[], Iterable[Served]]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "mezzotint_requests",
            "Calls for pictures by what they got, and whatever comes without the token that is asked for.",
            ["model", "code"],
            registry=self.registry,
        )
        self._images = Counter(
            "mezzotint_images", "Images that left, by how.", ["model", "outcome"], registry=self.registry
        )
        self._flagged = Counter(
            "mezzotint_flagged_images",
            "Pictures that the safety checker flagged, whatever became of them.",
            ["model"],
            registry=self.registry,
        )
        self._busy = Counter(
            "mezzotint_engine_seconds", "Seconds that engines ran.", ["model", "stage"], registry=self.registry
        )
        self._step = self._histogram(
            "mezzotint_step_seconds", "Seconds of a UNet call.", ["model", "variant"], _CALL_BUCKETS
        )
        self._rows = self._histogram("mezzotint_step_rows", "Rows of a UNet call.", ["model", "variant"], ROW_BUCKETS)
        self._request = self._histogram(
            "mezzotint_request_seconds", "Seconds from a request's arrival to its end.", ["model"], _REQUEST_BUCKETS
        )
        self._queue = self._histogram(
            "mezzotint_queue_seconds",
            "Seconds from a request's arrival to its first engine call, or to its end without one.",
            ["model"],
            _REQUEST_BUCKETS,
        )
        self._stage = self._histogram(
            "mezzotint_stage_seconds",
            "Seconds of a request's engine calls by stage; a call that several share counts for each.",
            ["model", "stage"],
            _REQUEST_BUCKETS,
        )
        Info("mezzotint_build", "The version that runs.", registry=self.registry).info(
            {"version": version("mezzotint")}
        )
        self.registry.register(_Now(cores))
        ProcessCollector(registry=self.registry)
        self._of_steps: dict[tuple[str, str], tuple[Histogram, Histogram]] = {}  # finding these by label takes longest

    def called(self, call: Call) -> None:
        """Count an engine call's seconds, and a UNet call's rows."""
        seconds = call.ended - call.began
        self._busy.labels(call.model, call.stage).inc(seconds)
        if call.stage is not Stage.DENOISE:
            return
        key = call.model, call.variant
        found = self._of_steps.get(key)
        if found is None:
            found = self._of_steps[key] = self._step.labels(*key), self._rows.labels(*key)
        step, rows = found
        step.observe(seconds)
        rows.observe(call.num_rows)

    def left(self, model: str, outcome: str) -> None:
        """Count an image."""
        self._images.labels(model, outcome).inc()

    def flagged(self, model: str) -> None:
        """Count a flagged picture."""
        self._flagged.labels(model).inc()

    def ended(self, ending: Ending) -> None:
        """Count where a request's time went."""
        spent = ending.spent
        self._request.labels(ending.model).observe(spent.total_ms / 1e3)
        self._queue.labels(ending.model).observe(spent.queue_ms / 1e3)
        for stage in ending.windows:
            self._stage.labels(ending.model, stage).observe(spent.stage_ms[stage] / 1e3)

    def answered(self, answer: Answer) -> None:
        """Count a call for pictures."""
        self._requests.labels(answer.model, answer.code).inc()

    def _histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


class _Now(Collector):
    """What is looked up at each scrape."""

    def __init__(self, cores: Callable[[], Iterable[Served]]) -> None:
        self._cores = cores
        self._totals = CacheTotals()

    def collect(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily("mezzotint_images_waiting", "Images that wait to be started.", labels=["model"])
        started = GaugeMetricFamily("mezzotint_images_started", "Images in the making.", labels=["model"])
        requests = GaugeMetricFamily("mezzotint_requests_open", "Requests that have not ended.", labels=["model"])
        hits = CounterMetricFamily("mezzotint_cache_hits", "What a cache had.", labels=["model", "cache"])
        misses = CounterMetricFamily("mezzotint_cache_misses", "What a cache had not.", labels=["model", "cache"])
        versions: dict[str, list[Served]] = {}  # of one name there are several while one takes another's place
        served = tuple(self._cores())
        for core in served:
            versions.setdefault(core.model.name, []).append(core)
        for name, cores in versions.items():
            waiting.add_metric([name], sum(core.num_waiting for core in cores))
            started.add_metric([name], sum(core.num_started for core in cores))
            requests.add_metric([name], sum(core.num_open for core in cores))
        for name, caches in self._totals.of(served).items():
            for cache, uses in caches.items():
                hits.add_metric([name, cache], uses.hits)
                misses.add_metric([name, cache], uses.misses)
        yield from (waiting, started, requests, hits, misses)
