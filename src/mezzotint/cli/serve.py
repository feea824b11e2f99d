"""``mezzotint serve``: bundles over gRPC, until it is told to stop."""

import asyncio
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from mezzotint.cli.access_options import access_config, server_options
from mezzotint.cli.config_file import ConfigurableCommand
from mezzotint.cli.embedding_options import embedding_option
from mezzotint.cli.gpu_options import MEMORY_SIZE, gpu_options
from mezzotint.cli.watch_options import watch_options

READY = "serving on "
"""What stands before the address in the line that says that the server is ready."""


@click.command(cls=ConfigurableCommand)
@click.argument(
    "bundles",
    metavar="BUNDLE...",
    nargs=-1,
    envvar="MEZZOTINT_SERVE_BUNDLES",
    type=click.Path(path_type=Path),
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="The address to listen on. 0.0.0.0 lets everyone in who can reach this machine, unless --tokens or "
    "--tls-client-ca says who may.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="The gRPC port; 0 is any free one."
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="D|COMPONENT=D,…",
    help="Where to run: cpu, gpu, npu or an execution provider, for all or by component (`text=cpu,unet=gpu`). Given "
    "several times, each is the place of an instance of its own, where a machine has several devices. "
    "[default: what the bundle was built for]",
)
@gpu_options
@click.option(
    "--num-threads",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="CPU threads of one engine call; 0 is as many as this process may keep busy: its cores, or a container's CPU "
    "quota. Set it where the server shares its machine.",
)
@click.option(
    "--max-queue-size",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Pictures that may wait; more are refused at once, with a hint when to try again.",
)
@click.option(
    "--max-started-images",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Pictures in the making at one time; each holds its latents in memory.",
)
@click.option(
    "--policy",
    default="log-boost",
    show_default=True,
    metavar="NAME",
    help="Who goes first where more pictures wait than a call holds: log-boost (short ones soon, long ones not much "
    "later), gamma-boost, least-work, processor-sharing, fcfs; or, for calls with deadlines, in-time (as many in "
    "time as can be) and earliest-deadline. docs/server.md has their figures.",
)
@server_options
@embedding_option
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    help="Engine loops that share the threads and the requests of each bundle, each with its own engines and memory. "
    "More than one is worth it on machines of many cores, where calls gain little from the last half of them: "
    "`mezzotint tune` measures that. [default: one, or as many as --device names]",
)
@click.option(
    "--priority-levels",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How many priorities a request may choose from: 1 goes first whatever the policy says, the middle one is that "
    "of requests that choose none. 1 switches them off, where clients are not to be trusted with them.",
)
@click.option(
    "--admit-late",
    is_flag=True,
    help="Take in requests too whose deadlines will pass before they are done, as far as can be foreseen. They are "
    "refused at once otherwise, so that the engines' time is others' and the client can ask elsewhere.",
)
@click.option(
    "--on-flagged",
    type=click.Choice(["mark", "blur", "refuse"]),
    default="mark",
    show_default=True,
    help="What becomes of pictures that a safety checker flags: mark only says so in the reply, blur gives a blurred "
    "picture, refuse ends the request. The last two give no previews, and need bundles that were compiled with "
    "--with-safety-checker.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long a stopping server may take to finish what it has accepted.",
)
@click.option(
    "--strict",
    is_flag=True,
    help="One row a call in one fixed shape, for engines whose rows depend on their neighbours: slower, and bit-equal "
    "in any load.",
)
@click.option(
    "--memory-budget",
    type=MEMORY_SIZE,
    default=None,
    metavar="SIZE",
    help="What the server may take in memory, as 2.5GiB or 800MB: engines are then prepared for fewer row counts, and "
    "sizes that were used longest ago make room for new ones, as do idle bundles for one that is loaded. "
    "[default: no limit]",
)
@click.option(
    "--tiles-above",
    type=click.IntRange(min=1),
    default=None,
    metavar="PIXELS",
    help="Decode pictures of more than so many pixels (1048576 is 1024x1024) in overlapping tiles, where the bundle "
    "was compiled with --tile-decoder: a little less exact, in the memory of one tile. Set it where large pictures do "
    "not fit the machine. [default: where a whole decode has no room in --memory-budget; without one, never]",
)
@click.option(
    "--model-repository",
    type=click.Path(path_type=Path),
    default=None,
    metavar="FOLDER",
    help="Lets clients load bundles below FOLDER by name and unload models (`mezzotint models`). Set it to swap in new "
    "versions while others are served; with --tokens only operators may do so, else whoever may come in. "
    "[default: nobody may]",
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Failed engine calls in a row after which a model is unhealthy and loaded again; 0 is never. Fewer mend a "
    "broken engine sooner, more bear a bad hour of the machine.",
)
@click.option(
    "--no-kserve",
    is_flag=True,
    help="Serve our own protocol alone. Triton's clients (the KServe v2 protocol, docs/kserve.md) are answered on the "
    "same port otherwise.",
)
@click.option(
    "--shared-memory",
    is_flag=True,
    help="Let Triton's clients on this machine hand arrays over in system shared memory. Set it where large arrays go "
    "to and fro and all who may come in are trusted: they can have the server read and write what lies in /dev/shm.",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing in the user's cache folder; the next start is slower.")
@watch_options
def command(
    bundles: tuple[Path, ...],
    host: str,
    port: int,
    devices: tuple[str, ...],
    allow_cpu_fallback: bool,
    device_memory: int | None,
    num_threads: int,
    max_queue_size: int,
    max_started_images: int,
    policy: str,
    instances: int | None,
    priority_levels: int,
    admit_late: bool,
    on_flagged: str,
    drain_seconds: float,
    strict: bool,
    memory_budget: int | None,
    tiles_above: int | None,
    model_repository: Path | None,
    max_failures: int,
    no_kserve: bool,
    shared_memory: bool,
    no_cache: bool,
    log_level: str,
    log_format: str,
    metrics_port: int,
    metrics_host: str,
    no_metrics: bool,
    otlp_endpoint: str,
    embeddings: tuple[str, ...],
    **access: Any,
) -> None:
    """Serve each BUNDLE under its own name over gRPC.

    Says where it listens as soon as every engine has run once. SIGTERM and Ctrl-C finish what was accepted, then stop.
    """
    # Libraries that run a subprocess make gRPC warn of forks, which this process has no use for.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

    from mezzotint.engines.backend import GpuOptions
    from mezzotint.engines.bundle import LoadOptions, parse_devices
    from mezzotint.engines.embedding_file import parse_embedding_path
    from mezzotint.server import logs
    from mezzotint.server.app import serve
    from mezzotint.server.config import (
        CoreConfig,
        KserveConfig,
        LifecycleConfig,
        MetricsConfig,
        ServerConfig,
        WatchConfig,
    )
    from mezzotint.server.flagged import OnFlagged

    if not bundles and model_repository is None:
        raise click.UsageError("Missing argument 'BUNDLE...'; without one, say `--model-repository`.")
    logs.set_up(log_level, log_format)
    places = tuple(parse_devices(device) for device in devices)
    config = ServerConfig(
        host=host,
        port=port,
        drain_seconds=drain_seconds,
        core=CoreConfig(
            max_queue_size=max_queue_size,
            max_started_images=max_started_images,
            policy=policy,
            priority_levels=priority_levels,
            admit_late=admit_late,
            on_flagged=OnFlagged(on_flagged),
            instances=instances or max(1, len(places)),
            devices=places if len(places) > 1 else (),
        ),
        access=access_config(**access),
        watch=WatchConfig(None if no_metrics else MetricsConfig(metrics_host, metrics_port), otlp_endpoint),
        lifecycle=LifecycleConfig(model_repository, max_failures),
        kserve=None if no_kserve else KserveConfig(shared_memory),
    )
    options = LoadOptions(
        devices=places[0] if places else {},
        num_threads=num_threads,
        strict=strict,
        cache=not no_cache,
        memory_budget=memory_budget,
        gpu=GpuOptions(allow_cpu_fallback, device_memory),
        embeddings=tuple(map(parse_embedding_path, embeddings)),
        tiles_above=tiles_above,
    )
    asyncio.run(serve(list(bundles), config, options, ready=partial(_say_ready, host)))


def _say_ready(host: str, port: int) -> None:
    """Say where the server listens; where stdout is full or gone it serves all the same."""
    from mezzotint.server.config import host_port

    line = f"mezzotint: {READY}{host_port(host, port)}"
    try:
        click.echo(line)
    except OSError:
        logging.getLogger(__name__).warning("stdout cannot be written; it would have said: %s", line)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else its flush at the end fails again
