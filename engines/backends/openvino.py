"""OpenVINO: CPU, GPU or NPU, by OpenVINO's own device names.

Engines are compiled for fixed shapes when they are loaded or first asked for a size, because a fixed shape is 1.3–1.5
times faster on a CPU than a dynamic one; one engine file serves all shapes. Every row count that was tried gives
bit-equal rows (the manifest says which for each engine), so a call is split freely over those that are prepared.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from mezzotint.engines.backend import Array, EngineOptions
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry, Precision
from mezzotint.engines.rows import split_rows

# What an engine computes in. int8 weights are unpacked to float32 where the device has no kernel for them.
_HINT = {Precision.FP32: "f32", Precision.FP16: "f16", Precision.BF16: "bf16", Precision.INT8: "f32"}
_MAX_SHAPES = 16  # compiled shapes kept at once; each holds its own packed weights

_Shapes = tuple[tuple[int, ...], ...]


class OpenVINOEngine:
    """One component on one device; a compiled model for each shape it has been called with."""

    def __init__(self, core: ov.Core, path: Path, spec: EngineEntry, device: str, options: EngineOptions) -> None:
        self.spec = spec
        self.device = device
        self._core = core
        self._path = path
        self._row_counts = options.row_counts
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _HINT[spec.precision],
        }
        if device.startswith("CPU"):
            threads = options.num_threads or len(os.sched_getaffinity(0))
            self._config |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        if options.cache_dir is not None:
            self._config["CACHE_DIR"] = str(options.cache_dir)
        self._requests: OrderedDict[_Shapes, ov.InferRequest] = OrderedDict()

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run rows float32 [rows, ...] of every input; outputs are new arrays. Raises EngineFailed."""
        arrays = [np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs]
        num_rows = arrays[0].shape[0]
        pieces: list[list[Array]] = []
        first = 0
        for count in split_rows(num_rows, self._row_counts):
            part = [_rows(array, first, count) for array in arrays]
            pieces.append(self._call(part))
            first += count
        outputs = zip(*pieces, strict=True)
        return {
            tensor.name: piece[0][:num_rows] if len(piece) == 1 else np.concatenate(piece)[:num_rows]
            for tensor, piece in zip(self.spec.outputs, outputs, strict=True)
        }

    def close(self) -> None:
        """Free all compiled models."""
        self._requests.clear()

    def _call(self, arrays: list[Array]) -> list[Array]:
        shapes = tuple(array.shape for array in arrays)
        try:
            request = self._request(shapes)
            request.infer(arrays, share_inputs=True)
            return [request.get_output_tensor(i).data.copy() for i in range(len(self.spec.outputs))]
        except RuntimeError as error:
            detail = str(error).strip().splitlines()[-1]
            raise EngineFailed(f"{self.spec.component} failed on {self.device} at {list(shapes)}: {detail}") from error

    def _request(self, shapes: _Shapes) -> ov.InferRequest:
        if shapes in self._requests:
            self._requests.move_to_end(shapes)
            return self._requests[shapes]
        model = self._core.read_model(self._path)
        model.reshape({i: ov.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
        request = self._core.compile_model(model, self.device, self._config).create_infer_request()
        self._requests[shapes] = request
        if len(self._requests) > _MAX_SHAPES:
            self._requests.popitem(last=False)
        return request


class OpenVINOBackend:
    """Engines in OpenVINO's own format (``.xml`` beside ``.bin``)."""

    name = "openvino"

    def __init__(self) -> None:
        self._core = ov.Core()

    def version(self) -> str:
        """Return OpenVINO's release, without the build number."""
        return str(ov.__version__).split("-")[0]

    def devices(self) -> tuple[str, ...]:
        """Return OpenVINO's device names."""
        return tuple(self._core.available_devices)

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> OpenVINOEngine:
        """Load one engine; its shapes are compiled when first called."""
        device = (options.device or spec.device).upper()
        if device.split(".")[0] not in {found.split(".")[0] for found in self.devices()}:
            found = ", ".join(self.devices())
            raise DeviceNotFound(f"device {device}: OpenVINO finds no such device for {spec.component}; found {found}")
        path = folder / next(iter(spec.files))
        if not path.is_file():
            raise BundleError(f"{path}: engine file is missing; compile the bundle again")
        return OpenVINOEngine(self._core, path, spec, device, options)


def _rows(array: Array, first: int, count: int) -> Array:
    """Return ``count`` rows from ``first``; the last row is repeated where there are fewer."""
    part = array[first : first + count]
    missing = count - part.shape[0]
    return part if not missing else np.concatenate([part, np.repeat(part[-1:], missing, axis=0)])


BACKEND = OpenVINOBackend()
