"""``mezzotint deploy-ray``: a bundle on many processes and machines behind one port, with Ray Serve."""

import signal
import threading
from pathlib import Path

import click

from mezzotint.cli.embedding_options import embedding_option
from mezzotint.cli.serve import READY


@click.command()
@click.option(
    "--bundle", required=True, type=click.Path(path_type=Path), help="The bundle's folder, the same on every node."
)
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Server processes, each with engines of its own. `mezzotint capacity` says how many a load needs.",
)
@click.option(
    "--autoscale",
    default="",
    metavar="MIN:MAX",
    help="As many replicas as there is work for, instead of a fixed number. Set it where load comes and goes and a "
    "replica starts sooner than people give up.",
)
@click.option(
    "--target-requests",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="With --autoscale, the open requests a replica should have: more share calls and wait longer.",
)
@click.option(
    "--num-cpus",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Cores that Ray sets aside for a replica; an engine call runs on as many threads, at least one.",
)
@click.option(
    "--num-gpus",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="GPUs that Ray sets aside for a replica, or a share of one. Say --device too.",
)
@click.option("--device", default="", metavar="D|COMPONENT=D,…", help="As for `mezzotint serve`.")
@embedding_option
@click.option(
    "--max-queue-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Pictures that may wait in one replica; more are refused at once, with a hint when to try again.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long a replica that is replaced or ended may take to finish what it has accepted. What it does not "
    "finish ends with UNAVAILABLE, and clients with `retries` have another paint it.",
)
@click.option(
    "--address",
    default="local",
    show_default=True,
    help="The Ray cluster: HOST:PORT of its head, or `auto` for the one on this machine. The command deploys there and "
    "ends; deploying again replaces the bundle. `local` starts a cluster here that ends with the command.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=8001,
    show_default=True,
    help="The gRPC port of the proxy on every node. Serve opens it on all addresses, without TLS and without tokens: "
    "let a firewall or a network policy say who may come in.",
)
@click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    default=8000,
    show_default=True,
    help="Serve opens an HTTP port beside it, on 127.0.0.1; nothing of ours answers there. Change it where it is "
    "taken.",
)
def command(
    bundle: Path,
    replicas: int,
    autoscale: str,
    target_requests: int,
    num_cpus: float,
    num_gpus: float,
    device: str,
    embeddings: tuple[str, ...],
    max_queue_size: int,
    drain_seconds: float,
    address: str,
    port: int,
    http_port: int,
) -> None:
    """Serve a bundle with several replicas behind one gRPC port, on one machine or a Ray cluster.

    For more requests than one process can paint. Clients see what `mezzotint serve` offers; each request goes to the
    replica that will be done with it first, by prediction. Needs the extra `ray`.
    """
    from mezzotint.server.ray.config import deployment_of
    from mezzotint.server.ray.deploy import HERE, connect, deploy, read_bundle, shut_down

    deployment = deployment_of(
        bundle,
        replicas=replicas,
        autoscale=autoscale,
        target_requests=target_requests,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        device=device,
        max_queue_size=max_queue_size,
        drain_seconds=drain_seconds,
        embedding=embeddings,
    )
    name = read_bundle(deployment).name
    connect(address, port, http_port)
    deploy(deployment, name)
    click.echo(f"mezzotint: {name} is deployed; {READY}127.0.0.1:{port} and on every node with a replica")
    if address == HERE:
        _wait_for_a_signal()
        shut_down(name)


def _wait_for_a_signal() -> None:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    stopping.wait()
