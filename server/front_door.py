"""How connections come in: plaintext or TLS, with or without tokens, and what one may cost before it is known."""

import logging

import grpc.aio

from mezzotint.proto.connection import is_local
from mezzotint.server.access import AccessConfig
from mezzotint.server.authentication import Authentication
from mezzotint.server.observer import Observer
from mezzotint.server.tls import server_credentials

logger = logging.getLogger(__name__)

_MAX_INT = 2**31 - 1  # of gRPC's arguments
_BACKSTOP = 2  # a message this many times too large is refused by gRPC unread; up to there the sentence is ours


class FrontDoor:
    """What gRPC's server is made of for the sake of access.

    Attributes:
        options: its channel arguments.
        interceptors: what calls pass before their requests are read.

    Raises:
        CredentialsError: a file cannot be used.
    """

    def __init__(self, access: AccessConfig, observer: Observer | None = None) -> None:
        self._credentials = None if access.tls is None else server_credentials(access.tls)
        self._asks_for_tokens = access.tokens is not None
        self.interceptors = () if access.tokens is None else (Authentication(access.tokens, observer),)
        self.options = (
            ("grpc.max_receive_message_length", min(_BACKSTOP * access.max_request_bytes, _MAX_INT)),
            ("grpc.server_handshake_timeout_ms", round(1e3 * access.handshake_seconds)),
        )

    def bind(self, server: grpc.aio.Server, address: str) -> int:
        """Listen on ``HOST:PORT`` and return the port. Raises RuntimeError where that cannot be."""
        if self._credentials is not None:
            return server.add_secure_port(address, self._credentials)
        if self._asks_for_tokens and not is_local(address):
            logger.warning("tokens go over the network in clear to %s; serve with --tls-cert and --tls-key", address)
        return server.add_insecure_port(address)
