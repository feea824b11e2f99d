"""Puts a bundle's replicas and Serve's gRPC proxies on a Ray cluster. The only file that calls Ray; lazily."""

import os
from typing import Any

from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import MezzotintError
from mezzotint.engines.manifest import MANIFEST, Manifest, read_manifest
from mezzotint.engines.prompt import Prompts
from mezzotint.server.ray.config import STATS_SECONDS, Deployment, deployment_of
from mezzotint.server.ray.door import SERVICER
from mezzotint.server.ray.replica import BUNDLE, DIGEST, Replica

ROUTER = "mezzotint.server.ray.router:QueueTimeRouter"
HERE = "local"
"""The address of a cluster that is started on this machine and ends with the process."""


def build(args: dict[str, Any]) -> Any:
    """Return the Serve application of a config file's ``args``, which are those of ``deployment_of``.

    Raises:
        MezzotintError: an argument is unknown or wrong.
        BundleError: the bundle, or a textual-inversion file for it, cannot be read here.
    """
    try:
        deployment = deployment_of(**args)
    except TypeError as error:
        raise MezzotintError(f"args: {error}; use the options of `mezzotint deploy-ray`, with _ for -") from None
    return application(deployment)


def read_bundle(deployment: Deployment) -> Manifest:
    """Return the manifest of a deployment's bundle, on which its textual-inversion files were tried.

    Raises:
        BundleError: the bundle cannot be read here.
        EmbeddingError: such a file cannot be read here, or does not fit the bundle.
    """
    manifest = read_manifest(deployment.bundle)
    Prompts(deployment.bundle, manifest.text, deployment.embeddings)
    return manifest


def application(deployment: Deployment) -> Any:
    """Return a deployment as a Serve application. Raises what ``read_bundle`` raises."""
    read_bundle(deployment)
    from ray import serve
    from ray.serve.config import RequestRouterConfig

    folder = deployment.bundle.absolute()
    router = RequestRouterConfig(request_router_class=ROUTER, request_routing_stats_period_s=STATS_SECONDS)
    made = serve.deployment(
        Replica,
        name="mezzotint",
        user_config={BUNDLE: str(folder), DIGEST: file_digest(folder / MANIFEST)},
        request_router_config=router,
        **deployment.options(),
    )
    return made.bind(deployment.server, deployment.load)


def connect(address: str, port: int, http_port: int) -> None:
    """Join the Ray cluster at an address, or start one, and have its proxies listen.

    Where Serve runs on the cluster already, its ports stay as they are.

    Raises:
        MezzotintError: the extra is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        from ray import serve
    except ImportError:
        raise MezzotintError("Ray is not installed; `pip install 'mezzotint[ray]'`") from None
    try:
        ray.init(address, include_dashboard=False if address == HERE else None, log_to_driver=address == HERE)
    except ConnectionError as error:
        raise MezzotintError(
            f"address={address}: no Ray cluster is there ({error}); start it, or leave it out"
        ) from None
    serve.start(
        proxy_location="EveryNode",
        http_options={"host": "127.0.0.1", "port": http_port},
        grpc_options={"port": port, "grpc_servicer_functions": [SERVICER]},
    )


def deploy(deployment: Deployment, name: str) -> None:
    """Deploy a bundle under its model's name, in the place of what has that name, and wait until it serves.

    Replicas are replaced one after the other or a fifth at a time; each finishes what it has accepted first.

    Raises:
        MezzotintError: its replicas do not start; Serve's log says why.
    """
    from ray import serve

    try:
        serve.run(application(deployment), name=name, route_prefix=f"/{name}")  # without, no proxy knows it
    except RuntimeError as error:
        raise MezzotintError(f"{deployment.bundle}: its replicas did not start ({error})") from None


def shut_down(name: str) -> None:
    """End a deployment, Serve, and the cluster that was started here; what was accepted is finished first."""
    import ray
    from ray import serve

    serve.delete(name)  # waits until its replicas have drained; to shut down ends the proxies at once
    serve.shutdown()
    ray.shutdown()
