"""A Triton server over gRPC, by Triton's own client library. Nothing else of ours imports that."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from mezzotint.engines.backends.triton import CallFailed, NoServer, Rows
from mezzotint.engines.errors import DeviceNotFound, first_line
from mezzotint.engines.remote import DIGEST

_ASK_SECONDS = 10.0
_TLS = "grpcs://"
_AWAY = "StatusCode.UNAVAILABLE"


class GrpcServer:
    """A server elsewhere.

    Args:
        device: ``HOST:PORT`` of its gRPC port, or ``grpcs://HOST:PORT``.

    Raises:
        DeviceNotFound: that is no address.
    """

    def __init__(self, device: str) -> None:
        address = device.removeprefix(_TLS)
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise DeviceNotFound(
                f"device {device!r}: is no Triton server's address; write HOST:PORT of its gRPC port, such as "
                "localhost:8001"
            )
        self._client = client.InferenceServerClient(address, ssl=device.startswith(_TLS))

    def digest(self, model: str) -> str:
        """Return the digest of the engine file that a model runs; empty where it names none."""
        if not self._ask(self._client.is_model_ready, model):
            raise CallFailed("it is not ready")
        config = self._ask(self._client.get_model_config, model).config
        return str(config.parameters[DIGEST].string_value) if DIGEST in config.parameters else ""

    def call(
        self, model: str, inputs: Mapping[str, Rows], outputs: Sequence[str], timeout_seconds: float
    ) -> dict[str, Rows]:
        """Run a model once."""
        sent = []
        for name, array in inputs.items():
            sent.append(client.InferInput(name, array.shape, "FP32"))
            sent[-1].set_data_from_numpy(array)
        wanted = [client.InferRequestedOutput(name) for name in outputs]
        with _Failures():
            result = self._client.infer(model, sent, outputs=wanted, client_timeout=timeout_seconds)
        found = {name: result.as_numpy(name) for name in outputs}
        return {name: np.array(array) for name, array in found.items() if array is not None}

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def _ask(self, question: Any, model: str) -> Any:
        with _Failures():
            return question(model, client_timeout=_ASK_SECONDS)


class _Failures:
    """What goes wrong inside becomes one of the two errors that the backend knows."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, InferenceServerException):
            kind = NoServer if error.status() == _AWAY else CallFailed
            raise kind(first_line(error.message() or "")) from error
