"""What a deployment on Ray Serve is made of. Imports neither Ray nor what it deploys."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mezzotint.engines.bundle import LoadOptions, parse_devices
from mezzotint.engines.embedding_file import EmbeddingPath, parse_embedding_path
from mezzotint.engines.errors import MezzotintError
from mezzotint.server.config import CoreConfig, ServerConfig

GRPC_PORT = 8001
HTTP_PORT = 8000
NUM_REPLICAS = 1
TARGET_REQUESTS = 4
NUM_CPUS = 1.0
STATS_SECONDS = 1.0
"""How often a replica says how much there is to do."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many replicas there are: so many, or as many as the requests need.

    Attributes:
        least, most: replicas; equal where their number is fixed.
        target_requests: the open requests a replica that are aimed at where it is not.
    """

    least: int = NUM_REPLICAS
    most: int = NUM_REPLICAS
    target_requests: int = TARGET_REQUESTS

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise MezzotintError(f"autoscale={self.least}:{self.most}: must be MIN:MAX with 1 <= MIN <= MAX")
        if self.target_requests < 1:
            raise MezzotintError(f"target_requests={self.target_requests}: must be at least 1")

    def options(self) -> dict[str, Any]:
        """Return it as options of a Serve deployment."""
        if self.least == self.most:
            return {"num_replicas": self.least}
        autoscaling = {"min_replicas": self.least, "max_replicas": self.most}
        return {"autoscaling_config": autoscaling | {"target_ongoing_requests": self.target_requests}}


@dataclass(frozen=True, slots=True)
class Resources:
    """What each replica has of its machine.

    Attributes:
        num_cpus: cores that Ray counts as taken; an engine call gets as many threads.
        num_gpus: GPUs that Ray gives to it alone, or a share of one.
    """

    num_cpus: float = NUM_CPUS
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        for name in ("num_cpus", "num_gpus"):
            if not getattr(self, name) >= 0:
                raise MezzotintError(f"{name}={getattr(self, name)}: must be 0 or more")

    @property
    def num_threads(self) -> int:
        """The CPU threads of one engine call; a share of a core is one."""
        return max(1, int(self.num_cpus))


@dataclass(frozen=True, slots=True)
class Deployment:
    """One bundle, served by replicas.

    Attributes:
        bundle: its folder, the same on every node.
        scale: how many replicas.
        resources: what each of them has.
        server: each one's limits; where it listens is not used, and ``drain_seconds`` is how long one that is replaced
            may take to finish what it has accepted.
        devices: as ``mezzotint serve --device`` takes them.
        embeddings: textual-inversion files, and folders of them, the same on every node.
    """

    bundle: Path
    scale: Scale = field(default_factory=Scale)
    resources: Resources = field(default_factory=Resources)
    server: ServerConfig = field(default_factory=ServerConfig)
    devices: str = ""
    embeddings: tuple[EmbeddingPath, ...] = ()

    @property
    def load(self) -> LoadOptions:
        """How a replica loads the bundle."""
        return LoadOptions(parse_devices(self.devices), self.resources.num_threads, embeddings=self.embeddings)

    def options(self) -> dict[str, Any]:
        """Return it as options of a Serve deployment, but for the router.

        A replica takes in whatever its own queue holds, since its refusals say more than Serve's.
        """
        core = self.server.core
        return {
            **self.scale.options(),
            "ray_actor_options": {"num_cpus": self.resources.num_cpus, "num_gpus": self.resources.num_gpus},
            "max_ongoing_requests": 2 * (core.max_queue_size + core.max_started_images),
            "graceful_shutdown_timeout_s": self.server.drain_seconds,
            "graceful_shutdown_wait_loop_s": 0.1,
            "health_check_period_s": 5.0,
        }


_CORE, _SERVER = CoreConfig(), ServerConfig()


def deployment_of(
    bundle: str | Path,
    *,
    replicas: int = NUM_REPLICAS,
    autoscale: str = "",
    target_requests: int = TARGET_REQUESTS,
    num_cpus: float = NUM_CPUS,
    num_gpus: float = 0.0,
    device: str = "",
    max_queue_size: int = _CORE.max_queue_size,
    drain_seconds: float = _SERVER.drain_seconds,
    embedding: str | Iterable[str] = (),
) -> Deployment:
    """Return a deployment by the options of `mezzotint deploy-ray`. Raises MezzotintError."""
    words = map(parse_embedding_path, (embedding,) if isinstance(embedding, str) else embedding)
    least, most = parse_autoscale(autoscale) if autoscale else (replicas, replicas)
    return Deployment(
        Path(bundle),
        Scale(least, most, target_requests),
        Resources(num_cpus, num_gpus),
        ServerConfig(drain_seconds=drain_seconds, core=CoreConfig(max_queue_size=max_queue_size)),
        device,
        tuple(replace(each, path=each.path.absolute()) for each in words),
    )


def parse_autoscale(text: str) -> tuple[int, int]:
    """Return the numbers of MIN:MAX. Raises MezzotintError."""
    least, _, most = text.partition(":")
    if not (least.isdecimal() and most.isdecimal()):
        raise MezzotintError(f"autoscale={text!r}: must be MIN:MAX, two numbers of replicas such as 1:8")
    return int(least), int(most)
