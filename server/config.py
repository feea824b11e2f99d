"""How a server is set up; each part gets only its own part. Imports errors and what its fields name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mezzotint.engines.errors import MezzotintError
from mezzotint.server.access import AccessConfig
from mezzotint.server.flagged import OnFlagged
from mezzotint.server.policy import DEFAULT_POLICY, POLICIES

MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class CoreConfig:
    """The limits of one served bundle.

    Attributes:
        max_queue_size: images that wait to be started, under the name that Triton has for it; more are refused.
        max_started_images: images between encoding and decoding; each holds its arrays on the device.
        policy: who goes first, one of ``policy.POLICIES``.
        priority_levels: how many there are; 1 goes first, and the middle one is a request's that says nothing.
        admit_late: take in requests too whose deadlines will pass, as far as can be foreseen.
        on_flagged: what becomes of pictures that the bundle's safety checker flags.
        instances: engine loops that share the cores and the requests, each with engines of its own.
        devices: where each of them runs, a device by component; empty is where the bundle is loaded without.
    """

    max_queue_size: int = 256
    max_started_images: int = 64
    policy: str = DEFAULT_POLICY
    priority_levels: int = 3
    admit_late: bool = False
    on_flagged: OnFlagged = OnFlagged.MARK
    instances: int = 1
    devices: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        for name in ("max_queue_size", "max_started_images", "priority_levels", "instances"):
            if getattr(self, name) < 1:
                raise MezzotintError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.devices and len(self.devices) != self.instances:
            raise MezzotintError(
                f"instances={self.instances}: {len(self.devices)} devices are named; name one for each, or one for all"
            )
        if self.policy not in POLICIES:
            raise MezzotintError(f"policy={self.policy!r}: must be one of {', '.join(POLICIES)}")


def host_port(host: str, port: int) -> str:
    """Return where something listens as HOST:PORT, in brackets where the host is an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """Where the HTTP port for metrics and health listens.

    Attributes:
        host: the address; the default is for this machine alone, since there is no authentication.
        port: the port, Triton's by default; 0 is any free one.
    """

    host: str = "127.0.0.1"
    port: int = 8002

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise MezzotintError(f"metrics_port={self.port}: must be between 0 and {MAX_PORT}; 0 is any free one")


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """What watches a server.

    Attributes:
        metrics: where Prometheus and probes may ask; None is nowhere.
        otlp_endpoint: the URL of the collector of traces; empty is what OpenTelemetry's environment variables say.
    """

    metrics: MetricsConfig | None = None
    otlp_endpoint: str = ""

    def __post_init__(self) -> None:
        if self.otlp_endpoint and not self.otlp_endpoint.startswith(("http://", "https://")):
            raise MezzotintError(
                f"otlp_endpoint={self.otlp_endpoint!r}: must be a URL of OTLP over gRPC; such as http://localhost:4317"
            )


@dataclass(frozen=True, slots=True)
class LifecycleConfig:
    """What happens to bundles while the server runs.

    Attributes:
        model_repository: the folder below which clients may have bundles loaded; None is nowhere.
        max_failures: failed calls of one stage in a row after which a bundle is loaded again; 0 is any number.
    """

    model_repository: Path | None = None
    max_failures: int = 3

    def __post_init__(self) -> None:
        if self.max_failures < 0:
            raise MezzotintError(f"max_failures={self.max_failures}: must be 0 or more; 0 is any number")


@dataclass(frozen=True, slots=True)
class KserveConfig:
    """How the KServe v2 protocol is served.

    Attributes:
        shared_memory: whether clients on the server's machine may have it read and write their shared memory.
    """

    shared_memory: bool = False


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How a server listens and stops.

    Attributes:
        host: the address to listen on; the default is for this machine alone, whom ``access`` lets in or not.
        port: the gRPC port, Triton's by default; 0 is any free one.
        drain_seconds: how long a stopping server may take to finish what it has accepted.
        core: the limits of each bundle.
        watch: metrics and traces; nothing by default.
        access: who may come in, and what a request may ask for.
        lifecycle: how bundles come and go.
        kserve: the second protocol on the same port; None is without.
    """

    host: str = "127.0.0.1"
    port: int = 8001
    drain_seconds: float = 30.0
    core: CoreConfig = field(default_factory=CoreConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    access: AccessConfig = field(default_factory=AccessConfig)
    lifecycle: LifecycleConfig = field(default_factory=LifecycleConfig)
    kserve: KserveConfig | None = field(default_factory=KserveConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= MAX_PORT:
            raise MezzotintError(f"port={self.port}: must be between 0 and {MAX_PORT}; 0 is any free one")
        if not self.drain_seconds >= 0:
            raise MezzotintError(f"drain_seconds={self.drain_seconds}: must be 0 or more")
