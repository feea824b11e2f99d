"""OpenVINO: CPU, GPU or NPU, by OpenVINO's own device names.

Engines are compiled for fixed shapes when they are loaded or first asked for a size, because a fixed shape is 1.3–1.5
times faster on a CPU than a dynamic one; one engine file serves all shapes. Every row count that was tried gives
bit-equal rows (the manifest says which for each engine), so a call is split freely over those that are prepared.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov

from mezzotint.engines.backend import Array, EngineOptions, closed
from mezzotint.engines.backends.openvino_blobs import Blobs
from mezzotint.engines.bundle_files import engine_file
from mezzotint.engines.component import Precision
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.errors import DeviceNotFound, EngineFailed, last_line
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.memory import anonymous_bytes, release_mapped, releasing_mapped, trim_heap
from mezzotint.engines.rows import call_in_parts
from mezzotint.engines.shapes import CompiledShapes, Shapes, Uses

_GIVE_BACK_FROM = 32 << 20  # bytes of weights; of smaller files giving back takes more time than it frees memory

# What an engine computes in. int8 weights are unpacked to float32 where the device has no kernel for them, and float16
# weights where it has no float16: the hint alone would give bfloat16 there, which is 30 dB further from the checkpoint.
# Beside 4-bit weights bfloat16 is 0.3 dB, and it halves what unpacked convolutions take.
_HINT = {
    Precision.FP16: "f16",
    Precision.BF16: "bf16",
    Precision.INT8_BF16: "bf16",
    Precision.INT4_WEIGHTS: "bf16",
}
_WHERE_FOUND = {Precision.FP16: "FP16", Precision.INT4_WEIGHTS: "BF16"}  # capabilities without which it is float32
_KEPT_FLOAT = {"HYBRID", "WEIGHTS"}  # what a precision's name says of activations, which is no capability


class OpenVINOEngine:
    """One component on one device; a compiled model for each shape it has been called with."""

    def __init__(self, core: ov.Core, path: Path, spec: EngineEntry, device: str, options: EngineOptions) -> None:
        self.spec = spec
        self.device = device
        self._core = core
        self._path = path
        self._weights = path.with_suffix(".bin")
        self._gives_back = self._weights.is_file() and self._weights.stat().st_size >= _GIVE_BACK_FROM
        self.row_counts = options.row_counts
        self._config: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": _hint(core, device, spec),
        }
        if device.startswith("CPU"):
            threads = options.num_threads or available_cpus()
            self._config |= {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        self._closed = False
        self._blobs: Blobs | None = None
        if options.cache_dir is not None and device.startswith("CPU"):
            self._blobs = Blobs(options.cache_dir, core, device, self._config, path, spec.files)
        elif options.cache_dir is not None:
            self._config["CACHE_DIR"] = str(options.cache_dir)
        self._shape_bytes = options.shape_bytes
        self._kept = options.shapes or CompiledShapes()  # safe for `prepare` beside `run`

    @property
    def shape_uses(self) -> Uses:
        """How often a call's shapes were compiled already, and how often it had to wait for that."""
        return self._kept.uses(self)

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run rows float32 [rows, ...] of every input; outputs are new arrays. Raises EngineFailed."""
        arrays = [np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs]
        outputs = call_in_parts(arrays, self._ready_counts(arrays) or self.row_counts, self._call)
        return {tensor.name: output for tensor, output in zip(self.spec.outputs, outputs, strict=True)}

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Compile for the shapes of ``inputs`` and run them once; other threads see the shapes only then."""
        arrays = [np.ascontiguousarray(inputs[tensor.name]) for tensor in self.spec.inputs]
        shapes = tuple(array.shape for array in arrays)
        if not self._kept.has(self, shapes):
            self._compiled(shapes, arrays)

    def close(self) -> None:
        """Free all compiled models."""
        self._closed = True
        self._kept.drop(self)

    def is_ready(self, inputs: Mapping[str, Array]) -> bool:
        """Whether a row count is compiled for this size, so that a call waits for nothing."""
        return bool(self._ready_counts([inputs[tensor.name] for tensor in self.spec.inputs]))

    def _ready_counts(self, arrays: list[Array]) -> tuple[int, ...]:
        """Return the row counts that are compiled for these arrays."""
        rest = [array.shape[1:] for array in arrays]
        ready = (count for count in self.row_counts if self._kept.has(self, tuple((count, *shape) for shape in rest)))
        return tuple(ready)

    def _call(self, arrays: list[Array]) -> list[Array]:
        shapes = tuple(array.shape for array in arrays)
        request = self._kept.get(self, shapes) or self._compiled(shapes, arrays)
        with self._failures(shapes):
            request.infer(arrays, share_inputs=True)
            return [request.get_output_tensor(i).data.copy() for i in range(len(self.spec.outputs))]

    def _compiled(self, shapes: Shapes, arrays: list[Array]) -> ov.InferRequest:
        """Compile for ``shapes``, run ``arrays`` once, and only then let other threads see it."""
        if self._closed:  # which has dropped all that was compiled, so that every call comes here
            raise closed(self.spec)
        rows = shapes[0][0]
        predicted = self._shape_bytes.get(rows, 0)
        self._kept.claim(self, shapes, predicted)
        before = anonymous_bytes()
        try:
            with self._failures(shapes), self._giving_back():
                request = self._made(shapes)
                request.infer(arrays)
        except BaseException:
            self._kept.drop(self, shapes)
            raise
        known = shapes == tuple(self.spec.input_shapes(rows).values())  # what was predicted is that of this size
        self._kept.keep(self, shapes, request, predicted if known else max(predicted, anonymous_bytes() - before))
        return request

    def _made(self, shapes: Shapes) -> ov.InferRequest:
        """Return a request of a model for these shapes: one that an earlier start compiled, or a new one."""
        compiled = self._blobs.load(shapes) if self._blobs else None
        if compiled is None:
            model = self._core.read_model(self._path)
            model.reshape({i: ov.PartialShape(list(shape)) for i, shape in enumerate(shapes)})
            config = self._blobs.config if self._blobs else self._config
            compiled = self._core.compile_model(model, self.device, config)
            if self._blobs:
                self._blobs.save(shapes, compiled)
        return compiled.create_infer_request()

    @contextlib.contextmanager
    def _giving_back(self) -> Iterator[None]:
        """Let the weights file's pages go while compiling reads through it and packs copies, and what is left after."""
        if not self._gives_back:
            yield
            return
        with releasing_mapped(self._weights):
            yield
        trim_heap()
        release_mapped(self._weights)

    @contextlib.contextmanager
    def _failures(self, shapes: Shapes) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise EngineFailed(
                f"{self.spec.component} failed on {self.device} at {list(shapes)}: {last_line(error)}"
            ) from error


def _hint(core: ov.Core, device: str, spec: EngineEntry) -> str:
    capabilities = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    needed = _WHERE_FOUND.get(spec.precision)
    return "f32" if needed and needed not in capabilities else _HINT.get(spec.precision, "f32")


class OpenVINOBackend:
    """Engines in OpenVINO's own format (``.xml`` beside ``.bin``)."""

    name = "openvino"
    packs_each_shape = True

    def __init__(self) -> None:
        self._core = ov.Core()

    def version(self, flavour: str = "") -> str:
        """Return OpenVINO's release, without the build number; it has no flavours."""
        return str(ov.__version__).split("-")[0]

    def devices(self) -> tuple[str, ...]:
        """Return OpenVINO's device names."""
        return tuple(self._core.available_devices)

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """Return the precisions that a device has kernels for, fp32 first."""
        found = self._found(device or "CPU")
        kernels = {*self._core.get_property(found, "OPTIMIZATION_CAPABILITIES"), *_KEPT_FLOAT}
        if found.startswith("CPU"):
            kernels.add("INT4")  # it keeps 4-bit weights packed, and does not list them
        return tuple(precision for precision in Precision if kernels.issuperset(precision.name.split("_")))

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> OpenVINOEngine:
        """Load one engine; its shapes are compiled when first called."""
        device = self._found(options.device or spec.device)
        return OpenVINOEngine(self._core, engine_file(folder, spec), spec, device, options)

    def _found(self, name: str) -> str:
        """Return a device's name as OpenVINO has it. Raises DeviceNotFound.

        Where there are several of a kind OpenVINO lists each with its number, and the kind alone is the first; where
        there is one it lists the kind, and number 0 is that.
        """
        device, found = name.upper(), self.devices()
        kind, _, number = device.rpartition(".") if "." in device else (device, "", "0")
        first_of_kind = number == "0" and any(kind in (other, other.partition(".")[0]) for other in found)
        if device not in found and not first_of_kind:
            raise DeviceNotFound(f"device {name}: OpenVINO finds no such device; found {', '.join(found)}")
        return device


BACKEND = OpenVINOBackend()
