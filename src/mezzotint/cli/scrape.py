"""A server's metrics as numbers: read over HTTP, and what has happened between two readings."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from mezzotint.engines.errors import MezzotintError, Unavailable

_TIMEOUT_SECONDS = 5.0
_MAX_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of an exposition."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All samples of one reading by name; ``at`` is when it was made, seconds since the epoch."""

    at: float
    samples: Mapping[str, tuple[Sample, ...]]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples that have these labels; 0 where there is none."""
        return sum(sample.value for sample in self.samples.get(name, ()) if labels.items() <= sample.labels.items())

    def values(self, name: str, label: str) -> list[str]:
        """Return what a label of a metric stands at, in order."""
        return sorted({sample.labels[label] for sample in self.samples.get(name, ()) if label in sample.labels})


@dataclass(frozen=True, slots=True)
class Between:
    """What has happened from one reading to a later one; without an earlier one, since the server's start."""

    before: Snapshot | None
    after: Snapshot

    @property
    def seconds(self) -> float:
        """The seconds between; 0 where nobody knows."""
        if self.before is not None:
            return self.after.at - self.before.at
        started = self.after.total("process_start_time_seconds")
        return max(0.0, self.after.at - started) if started else 0.0

    def more(self, name: str, **labels: str) -> float:
        """Return by how much a counter has grown; one that has started again counts from 0, as in Prometheus."""
        before = 0.0 if self.before is None else self.before.total(name, **labels)
        after = self.after.total(name, **labels)
        return after - before if after >= before else after

    def mean(self, histogram: str, **labels: str) -> float | None:
        """Return the mean of what a histogram saw; None where that was nothing."""
        number = self.more(f"{histogram}_count", **labels)
        return self.more(f"{histogram}_sum", **labels) / number if number else None

    def quantile(self, share: float, histogram: str, **labels: str) -> float | None:
        """Return a quantile as ``histogram_quantile`` of Prometheus does: straight lines inside buckets."""
        name = f"{histogram}_bucket"
        bounds = sorted(self.after.values(name, "le"), key=float)
        counts = [self.more(name, le=bound, **labels) for bound in bounds]
        if not counts or not counts[-1]:
            return None
        rank = share * counts[-1]
        i = next(i for i, count in enumerate(counts) if count >= rank)
        low, below = (float(bounds[i - 1]), counts[i - 1]) if i else (0.0, 0.0)
        if i == len(bounds) - 1:
            return low  # beyond the last bound nobody knows how far
        return low + (float(bounds[i]) - low) * (rank - below) / (counts[i] - below)


def metrics_url(given: str) -> str:
    """Return the URL of metrics from ``HOST:PORT`` or a URL with or without a path. Raises MezzotintError."""
    url = given if "://" in given else f"http://{given}"
    scheme, _, rest = url.partition("://")
    if scheme not in ("http", "https") or not rest:
        raise MezzotintError(f"{given}: must be HOST:PORT or a URL, as http://localhost:8002/metrics")
    return url if "/" in rest.rstrip("/") else f"{url.rstrip('/')}/metrics"


def read(url: str, now: float) -> Snapshot:
    """Read a server's metrics. Raises Unavailable where there are none of ours."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:
            text = answer.read(_MAX_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        error.close()
        raise Unavailable(f"{url}: answers {error.code} {error.reason}; is that the `--metrics-port`?") from None
    except http.client.HTTPException:
        raise Unavailable(f"{url}: does not speak HTTP; is that the `--metrics-port`, or the gRPC port?") from None
    except (OSError, UnicodeError) as error:  # the latter of a host that no name server could be asked for
        cause = getattr(error, "reason", error)
        reason = str(getattr(cause, "strerror", None) or cause).lower()
        raise Unavailable(f"{url}: nobody answers ({reason}); is a server there, with that `--metrics-port`?") from None
    try:
        samples = _parse(text)
    except ValueError:
        samples = {}
    if "mezzotint_build_info" not in samples:
        raise Unavailable(f"{url}: answers, but not with the metrics of a Mezzotint server; check host and port")
    return Snapshot(now, samples)


def _parse(text: str) -> dict[str, tuple[Sample, ...]]:
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(Sample(sample.labels, sample.value))
    return {name: tuple(samples) for name, samples in found.items()}
