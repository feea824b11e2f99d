"""Who sent a call: the name that limits, shares and the audit log know a client by. Knows gRPC's context alone.

A token's name stands before a certificate's, and that before the address, which is all that is known without either.
The names come from the server's own files and checks, never from what a request says.
"""

import urllib.parse
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from mezzotint.engines.errors import NotAllowed


class KnownBy(StrEnum):
    """What a client's name was taken from."""

    TOKEN = "token"
    CERTIFICATE = "certificate"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Client:
    """A client; two of one name are the same one only where the name was taken from the same.

    Attributes:
        name: printable, on one line.
        known_by: what proves it.
    """

    name: str
    known_by: KnownBy = KnownBy.ADDRESS

    def __str__(self) -> str:
        return f"{self.known_by}:{self.name}"


class Context(Protocol):
    """What is asked of gRPC's ``ServicerContext``."""

    def peer(self) -> str:
        """Return the peer's address as gRPC writes it."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what the peer's certificate says."""


_CERTIFICATE_NAMES = ("x509_subject_alternative_name", "x509_common_name")  # the first that there is, as gRPC does
_token_name: ContextVar[str] = ContextVar("token_name", default="")
_is_operator: ContextVar[bool] = ContextVar("is_operator", default=True)


def note_token(name: str, is_operator: bool = False) -> None:
    """Note, in the task that serves a call, the name of the token that it came with, and its role."""
    _token_name.set(name)
    _is_operator.set(is_operator)


def check_operator() -> None:
    """Raise NotAllowed where the call that the current task serves came with a token without the operator's role.

    Where no tokens are asked for, nobody has a role, and whoever is let in may do it.
    """
    if not _is_operator.get():
        raise NotAllowed(
            f"{_token_name.get()} may not load or unload models; ask the server's keeper for a token with that role, "
            "which `mezzotint token NAME --operator` makes"
        )


def client_of(context: Context) -> Client:
    """Return who sent the call that the current task serves."""
    if token := _token_name.get():
        return Client(token, KnownBy.TOKEN)
    certificate = context.auth_context()
    for field in _CERTIFICATE_NAMES:
        for name in certificate.get(field, ()):
            return Client(_printable(name.decode("utf-8", "backslashreplace")), KnownBy.CERTIFICATE)
    return Client(_printable(address_of(context.peer())))


def address_of(peer: str) -> str:
    """Return gRPC's name of a peer without the port, which is another one for each connection."""
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else peer


def _printable(name: str) -> str:
    """Escape what would break a line of a log; different names stay different."""
    return name if name.isprintable() else name.encode("unicode_escape").decode("ascii")
