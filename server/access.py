"""How a server's front door is set up: who may come in, and what a request may ask for. Knows no wire."""

from dataclasses import dataclass, field
from pathlib import Path

from mezzotint.engines.errors import MezzotintError
from mezzotint.server.limits import RequestLimits
from mezzotint.server.rates import RateLimit

MAX_HANDSHAKE_SECONDS = 3600
MAX_MESSAGE_BYTES = 1 << 30  # protobuf's messages end below 2 GiB, and gRPC is let read twice a request's limit


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The files of a server's TLS, all PEM, read again when they change.

    Attributes:
        cert: the certificate chain, its own first.
        key: its private key, not encrypted.
        client_ca: the authorities whose certificates clients must show; None asks for none.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return (self.cert, self.key) if self.client_ca is None else (self.cert, self.key, self.client_ca)


@dataclass(frozen=True, slots=True)
class AccessConfig:
    """The front door.

    Attributes:
        tls: None is plaintext.
        tokens: the file of the tokens that let clients in; None lets everyone in.
        max_request_bytes: of one message.
        handshake_seconds: how long a connection may take until it can send requests.
        unread_seconds: how long finished pictures wait for a client that takes nothing.
        limits: what one request may ask for.
        rate: what each client may ask for over time; None is anything.
    """

    tls: TlsConfig | None = None
    tokens: Path | None = None
    max_request_bytes: int = 64 << 20
    handshake_seconds: float = 10.0
    unread_seconds: float = 120.0
    limits: RequestLimits = field(default_factory=RequestLimits)
    rate: RateLimit | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.max_request_bytes <= MAX_MESSAGE_BYTES:
            raise MezzotintError(
                f"max_request_bytes={self.max_request_bytes}: must be between 1 and {MAX_MESSAGE_BYTES}, 1 GiB"
            )
        if not 0 < self.handshake_seconds <= MAX_HANDSHAKE_SECONDS:
            raise MezzotintError(
                f"handshake_seconds={self.handshake_seconds}: must be above 0 and at most {MAX_HANDSHAKE_SECONDS}"
            )
        if not self.unread_seconds > 0:
            raise MezzotintError(f"unread_seconds={self.unread_seconds}: must be above 0")
