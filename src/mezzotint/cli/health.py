"""``mezzotint health``: does a server serve? For health checks of containers, which know exit codes alone."""

from typing import Any

import click

from mezzotint.cli.access_options import security, tls_options


@click.command()
@click.argument("server", metavar="[HOST:PORT]", default="localhost:8001")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=3.0,
    show_default=True,
    help="Seconds to wait for an answer. Keep it below the timeout of whoever runs the check.",
)
@tls_options
def command(server: str, timeout: float, **options: Any) -> None:
    """Ask a server whether it serves, by gRPC's health protocol: exit code 0 is yes, 1 is no.

    A server that loads its bundles or stops says no. It answers without a token.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from mezzotint.proto.connection import connection
    from mezzotint.proto.errors import MezzotintClientError

    try:
        credentials, _ = connection(server, **security(options) | {"token": ""})
    except MezzotintClientError as error:
        raise click.UsageError(error.message) from None
    with grpc.secure_channel(server, credentials) if credentials else grpc.insecure_channel(server) as channel:
        try:
            asked = health_pb2.HealthCheckRequest()
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=timeout).status
        except grpc.RpcError as error:
            raise click.ClickException(f"{server}: no server answered the health check ({error.code().name})") from None
    word = health_pb2.HealthCheckResponse.ServingStatus.Name(answer)
    if answer != health_pb2.HealthCheckResponse.SERVING:
        raise click.ClickException(f"{server}: says {word}; it loads its bundles or is stopping")
    click.echo(f"{server}: {word}")
