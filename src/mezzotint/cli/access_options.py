"""The options of ``serve`` for its front door, and those of clients for how to connect to one."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mezzotint.cli.option_group import option_group

if TYPE_CHECKING:
    from mezzotint.proto.connection import Security
    from mezzotint.server.access import AccessConfig


_FILE = click.Path(dir_okay=False, path_type=Path)


class Rate(click.ParamType[Any]):
    """Rows a second, and a burst."""

    name = "rate"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a RateLimit; fails with one sentence."""
        from mezzotint.server.rates import parse_rate

        try:
            return parse_rate(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_SERVER_OPTIONS = (
    click.option(
        "--tls-cert",
        type=_FILE,
        metavar="FILE",
        help="Serve with TLS, and this PEM file's certificate chain; needed where requests come over a network. A "
        "renewed file holds from the next connection on.",
    ),
    click.option("--tls-key", type=_FILE, metavar="FILE", help="The certificate's private key, PEM, not encrypted."),
    click.option(
        "--tls-client-ca",
        type=_FILE,
        metavar="FILE",
        help="Let in only clients with a certificate of these authorities (mutual TLS), for services that have one.",
    ),
    click.option(
        "--tokens",
        type=_FILE,
        metavar="FILE",
        help="Let in only clients with a token of this file, whose lines `mezzotint token NAME` makes; a change holds "
        "at once. Health checks need none. Loading and unloading models needs one with the operator's role.",
    ),
    click.option(
        "--max-request-bytes",
        type=click.IntRange(1, 1 << 30),
        default=64 << 20,
        show_default=True,
        help="The largest request; only given latents, images and masks are large. Less keeps strangers from filling "
        "the memory.",
    ),
    click.option(
        "--handshake-seconds",
        type=click.FloatRange(0, 3600, min_open=True),
        default=10.0,
        show_default=True,
        help="How long a connection may take until it can send requests. Raise it where clients come over slow links; "
        "lower it where strangers hold connections open.",
    ),
    click.option(
        "--unread-seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=120.0,
        show_default=True,
        help="How long finished pictures wait in memory for a client that takes nothing; then its call ends. Raise it "
        "where clients pause.",
    ),
    click.option(
        "--max-steps",
        type=click.IntRange(min=1),
        help="The most steps of a request, so that no single one keeps the others waiting. [default: the model's]",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        help="The largest picture, width × height, likewise. [default: the bundle's]",
    ),
    click.option("--max-images", type=click.IntRange(min=1), help="The most pictures of a request. [default: 64]"),
    click.option(
        "--rate-limit",
        type=Rate(),
        metavar="ROWS_PER_SECOND[:BURST]",
        help="UNet rows that each client may have computed: so many a second, and a burst after a pause; a guided "
        "picture of 25 steps is 50. For servers that several share. [default: no limit; a burst of ten seconds' rows]",
    ),
)

_TLS_OPTIONS = (
    click.option("--tls", is_flag=True, help="Connect with TLS, to a server that a public authority vouches for."),
    click.option(
        "--tls-ca",
        type=_FILE,
        metavar="FILE",
        help="Connect with TLS, to a server whose certificate is of this authority's, PEM.",
    ),
    click.option("--tls-cert", type=_FILE, metavar="FILE", help="Your own certificate, where the server asks for one."),
    click.option("--tls-key", type=_FILE, metavar="FILE", help="Its private key."),
)
_TOKEN = click.option(
    "--token",
    envvar="MEZZOTINT_TOKEN",
    metavar="TOKEN",
    help="What the server knows you by, where it asks for a token. Other users of this machine see command lines: set "
    "MEZZOTINT_TOKEN instead.",
)


server_options = option_group(*_SERVER_OPTIONS)
"""Adds the options of the front door; ``access_config`` takes their values."""
tls_options = option_group(*_TLS_OPTIONS)
"""Adds the options of a connection without a token."""
client_options = option_group(*_TLS_OPTIONS, _TOKEN)
"""Adds the options of a connection; ``security`` takes their values."""


def access_config(
    *,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    tokens: Path | None,
    max_request_bytes: int,
    handshake_seconds: float,
    unread_seconds: float,
    rate_limit: Any,
    **limits: int | None,
) -> "AccessConfig":
    """Return what the options of the front door say. Raises UsageError where they do not go together."""
    from mezzotint.server.access import AccessConfig, TlsConfig
    from mezzotint.server.limits import RequestLimits

    if (tls_cert is None) != (tls_key is None) or (tls_client_ca is not None and tls_cert is None):
        raise click.UsageError("`--tls-cert` and `--tls-key` must come together, and `--tls-client-ca` with both")
    return AccessConfig(
        tls=None if tls_cert is None or tls_key is None else TlsConfig(tls_cert, tls_key, tls_client_ca),
        tokens=tokens,
        max_request_bytes=max_request_bytes,
        handshake_seconds=handshake_seconds,
        unread_seconds=unread_seconds,
        limits=RequestLimits(**limits),
        rate=rate_limit,
    )


def security(options: dict[str, Any]) -> "Security":
    """Take the options of a connection out of a command's others."""
    return {
        "tls": options.pop("tls"),
        "tls_ca": options.pop("tls_ca"),
        "tls_cert": options.pop("tls_cert"),
        "tls_key": options.pop("tls_key"),
        "token": options.pop("token", None),
    }
