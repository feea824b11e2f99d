"""Triton Inference Server: engines that are models of one, called by KServe v2 over gRPC, host arrays both ways.

A device is where the server's gRPC port is, ``HOST:PORT`` or ``grpcs://HOST:PORT`` for TLS; ``inside`` is the server
that runs this process as a model. An engine's file names its model; what that model runs is compared by digest when it
is loaded. Calls have a time limit, are not tried again, and fail their own pictures; a model whose calls all fail is
loaded again (``serve --max-failures``), and its health says so.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from mezzotint.engines.backend import Array, EngineOptions, closed
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry, TensorSpec
from mezzotint.engines.remote import INSIDE, PROTOCOL, RemoteModel
from mezzotint.engines.rows import call_in_parts

Rows = npt.NDArray[np.float32]


class CallFailed(Exception):
    """A call of a model did not do what it had to; its text is the reason."""


class NoServer(Exception):
    """There is no server to call; its text is the reason."""


class Server(Protocol):
    """A Triton server; any thread may call it."""

    def digest(self, model: str) -> str | None:
        """Return the digest of the engine file that a model runs, where one can ask. Raises CallFailed, NoServer."""
        ...

    def call(
        self, model: str, inputs: Mapping[str, Rows], outputs: Sequence[str], timeout_seconds: float
    ) -> Mapping[str, Rows]:
        """Run a model once. Raises CallFailed, NoServer."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class TritonEngine:
    """One component as a model of a server."""

    def __init__(self, server: Server, remote: RemoteModel, spec: EngineEntry, device: str, rows: tuple[int, ...]):
        self.spec = spec
        self.device = device
        self.row_counts = rows
        self._server: Server | None = server
        self._remote = remote

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run rows float32 [rows, ...] of every input; outputs are new arrays. Raises EngineFailed."""
        arrays = {tensor.name: np.ascontiguousarray(inputs[tensor.name], np.float32) for tensor in self.spec.inputs}
        if self._server is None:
            raise closed(self.spec)
        call = partial(self._call, self._server, list(arrays))
        try:
            outputs = call_in_parts(list(arrays.values()), self.row_counts, call)
            return {tensor.name: array for tensor, array in zip(self.spec.outputs, outputs, strict=True)}
        except (CallFailed, NoServer) as error:
            shapes = [array.shape for array in arrays.values()]
            raise EngineFailed(
                f"{self.spec.component} failed on {self.device} at {shapes}: model {self._remote.model}: {error}"
            ) from error

    def _call(self, server: Server, names: Sequence[str], arrays: Sequence[Rows]) -> list[Rows]:
        inputs, wanted = dict(zip(names, arrays, strict=True)), [tensor.name for tensor in self.spec.outputs]
        outputs = server.call(self._remote.model, inputs, wanted, self._remote.timeout_seconds)
        return [checked(tensor, outputs, inputs) for tensor in self.spec.outputs]

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Run ``inputs`` once, which shows that the model takes them."""
        self.run(inputs)

    def close(self) -> None:
        """Give the connection back."""
        if self._server is not None:
            self._server.close()
        self._server = None


class TritonBackend:
    """Engines in files that name a model of a Triton server."""

    name = "triton"
    packs_each_shape = False

    def version(self, flavour: str = "") -> str:
        """Return the version of the protocol; that of the runtime is the server's matter."""
        return PROTOCOL

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """Return nothing: nothing is compiled for this backend, but exported (`mezzotint export-triton`)."""
        return ()

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> TritonEngine:
        """Find an engine's model. Raises BundleError; DeviceNotFound where no server answers."""
        device = options.device or spec.device
        path = folder / next(iter(spec.files))
        try:
            remote = RemoteModel.model_validate_json(path.read_bytes())
        except OSError:
            raise BundleError(f"{path}: engine file is missing; export the bundle again") from None
        except ValidationError:
            raise BundleError(f"{path}: names no model of Triton; export the bundle again") from None
        server = _server(device)
        try:
            digest = server.digest(remote.model)
        except NoServer as error:
            server.close()
            raise DeviceNotFound(
                f"device {device}: no Triton server answers there ({error}); start it, or name another with `--device`"
            ) from error
        except CallFailed as error:
            server.close()
            raise BundleError(
                f"{spec.component}: {device} has no model {remote.model} ({error}); load it there, "
                "or export the bundle to its model repository with `mezzotint export-triton`"
            ) from error
        if digest is not None and digest != remote.sha256:
            server.close()
            raise BundleError(
                f"{spec.component}: model {remote.model} of {device} runs another engine ({digest[:12] or 'unnamed'}) "
                f"than this bundle was exported with ({remote.sha256[:12]}); export it again"
            )
        return TritonEngine(server, remote, spec, device, options.row_counts)


def checked(tensor: TensorSpec, outputs: Mapping[str, Rows], inputs: Mapping[str, Rows]) -> Rows:
    """Return an output as the manifest has it. Raises CallFailed."""
    array = outputs.get(tensor.name)
    if array is None:
        raise CallFailed(f"gave no output {tensor.name}; it gave {', '.join(outputs) or 'none'}")
    rows = next(iter(inputs.values())).shape[0]
    fixed = [rows if axis == "rows" else axis for axis in tensor.axes]
    fits = array.ndim == len(fixed) and all(
        isinstance(axis, str) or axis == length for axis, length in zip(fixed, array.shape, strict=True)
    )
    if not fits or array.dtype != np.float32:
        wanted = ", ".join(map(str, fixed))
        raise CallFailed(f"gave {tensor.name} as {array.dtype} {list(array.shape)}, expected float32 [{wanted}]")
    return array


def _server(device: str) -> Server:
    if device == INSIDE:
        try:
            from mezzotint.engines.backends.triton_inside import InsideServer
        except ImportError:
            raise DeviceNotFound(
                f"device {device}: is there in a model of Triton alone; name a server's HOST:PORT with `--device`"
            ) from None
        return InsideServer()
    if importlib.util.find_spec("tritonclient") is None:
        raise BundleError("backend triton: tritonclient is not installed; `pip install 'mezzotint[triton]'`")
    from mezzotint.engines.backends.triton_grpc import GrpcServer

    return GrpcServer(device)


BACKEND = TritonBackend()
