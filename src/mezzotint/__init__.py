"""Mezzotint: compiled Stable Diffusion engines, served over gRPC. Importing it loads nothing; names load when used."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mezzotint.proto.aio import AsyncClient
    from mezzotint.proto.client import Client
    from mezzotint.proto.errors import MezzotintClientError

    __version__: str

__all__ = ["AsyncClient", "Client", "MezzotintClientError", "__version__"]

_HOME = {
    "AsyncClient": "mezzotint.proto.aio",
    "Client": "mezzotint.proto.client",
    "MezzotintClientError": "mezzotint.proto.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("mezzotint")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
