"""A server's TLS, for gRPC: certificates that are renewed on disk hold from the next connection on."""

import ssl
from typing import Any, TypeAlias

import grpc

from mezzotint.engines.errors import CredentialsError
from mezzotint.server.access import TlsConfig
from mezzotint.server.reloaded import Reloaded


def server_credentials(config: TlsConfig) -> grpc.ServerCredentials:
    """Return credentials of the config's files, for ``add_secure_port``. Raises CredentialsError."""
    files = Reloaded(config.paths, lambda: _read(config))
    last = files.get()

    def renewed() -> Any:  # None where nothing is, which gRPC's types have left out
        """Return what is new; a thread of gRPC's asks before each handshake."""
        nonlocal last
        found = files.get()
        if found is last:
            return None
        last = found
        return _configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(last), renewed, require_client_authentication=config.client_ca is not None
    )


_Pem: TypeAlias = tuple[bytes, bytes, bytes | None]


def _configuration(pem: _Pem) -> grpc.ServerCertificateConfiguration:
    """Return gRPC's own object, which serves once."""
    cert, key, client_ca = pem
    return grpc.ssl_server_certificate_configuration([(key, cert)], client_ca)


def _read(config: TlsConfig) -> _Pem:
    """Read the files where they fit together, which gRPC says only in a log of its own. Raises CredentialsError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.cert, config.key, password=_no_password)
        cert, key = config.cert.read_bytes(), config.key.read_bytes()
    except OSError as error:  # ssl's errors are of this class too
        raise CredentialsError(
            f"{config.cert} and {config.key}: are no certificate and its key ({_reason(error)}); "
            "name PEM files, the key not encrypted, or put the new ones there"
        ) from None
    if config.client_ca is None:
        return cert, key, None
    try:
        context.load_verify_locations(config.client_ca)
        return cert, key, config.client_ca.read_bytes()
    except OSError as error:
        raise CredentialsError(
            f"{config.client_ca}: has no certificate of an authority ({_reason(error)}); name a PEM file"
        ) from None


def _no_password() -> str:
    """Give none, where the default would ask at the terminal."""
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "it is no PEM").replace("_", " ").lower()
    return (error.strerror or str(error)).lower()
