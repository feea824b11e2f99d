"""How the clients connect: plaintext or TLS, and the token that goes with each call. Imports grpc alone."""

import ipaddress
import os
import urllib.parse
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

import grpc

from mezzotint.proto.errors import invalid

TOKEN_VARIABLE = "MEZZOTINT_TOKEN"

Metadata: TypeAlias = tuple[tuple[str, str], ...]


class Security(TypedDict, total=False):
    """How a client connects; any of the files means TLS.

    Attributes:
        tls: connect with TLS, to a server whose certificate a public authority vouches for.
        tls_ca: PEM file of the authorities that may vouch for the server instead.
        tls_cert: PEM file of the client's own certificate, where the server asks for one.
        tls_key: PEM file of its key.
        token: what the server knows the client by; left out, it is ``MEZZOTINT_TOKEN`` of the environment.
    """

    tls: bool
    tls_ca: str | os.PathLike[str] | None
    tls_cert: str | os.PathLike[str] | None
    tls_key: str | os.PathLike[str] | None
    token: str | None


def connection(target: str, **security: Unpack[Security]) -> tuple[grpc.ChannelCredentials | None, Metadata]:
    """Return the credentials for ``target``, None for plaintext, and the metadata that goes with each call.

    Raises:
        MezzotintClientError: a file cannot be read, or the token would go over a network in clear (INVALID_ARGUMENT).
    """
    files = [security.get("tls_ca"), security.get("tls_key"), security.get("tls_cert")]
    secure = security.get("tls", False) or any(files)
    if bool(files[1]) != bool(files[2]):
        raise invalid("tls_cert and tls_key: must come together; name the certificate's file and its key's")
    token = security.get("token")
    token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
    if not (token.isascii() and token.isprintable()):
        raise invalid("token: has characters that no token has; take it as `mezzotint token NAME` printed it")
    if token and not secure and not is_local(target):
        raise invalid(f"{target}: the token would go there in clear; connect with TLS, such as by a CA file")
    credentials = grpc.ssl_channel_credentials(*(_read(path) if path else None for path in files)) if secure else None
    return credentials, (("authorization", f"Bearer {token}"),) if token else ()


def is_local(target: str) -> bool:
    """Return whether what is sent to a target of gRPC's surely stays on this machine."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    address = urllib.parse.unquote(target).removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:")
    host = address.lstrip("/").rpartition(":")[0] or address.lstrip("/")
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise invalid(f"{os.fspath(path)}: cannot be read ({reason}); name a PEM file") from None
