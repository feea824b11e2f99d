"""``mezzotint health``: does a server serve? For health checks of containers, which know exit codes alone."""

import click


@click.command()
@click.argument("server", metavar="[HOST:PORT]", default="localhost:8001")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds to wait for an answer. Keep it below the timeout of whoever runs the check.",
)
def command(server: str, timeout: float) -> None:
    """Ask a server whether it serves, by gRPC's health protocol: exit code 0 is yes, 1 is no.

    A server that loads its bundles or stops says no.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(server) as channel:
        try:
            asked = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=timeout).status
        except grpc.RpcError as error:
            raise click.ClickException(f"{server}: no server says how it is ({error.code().name})") from None
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(answer)
    if answer != health_pb2.HealthCheckResponse.SERVING:
        raise click.ClickException(f"{server}: says {word}; it loads its bundles or is stopping")
    click.echo(f"{server}: {word}")
