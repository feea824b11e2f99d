"""ONNX Runtime: any execution provider by name, ``cpu``, ``cuda``, ``cuda:1`` or ``CUDAExecutionProvider``.

One session serves all shapes. Inputs are bound where they lie and outputs are made on the session's device, so that a
call copies nothing: host memory for the CPU and for providers that copy themselves, a GPU's for CUDA and TensorRT. On
the CPU every row count that was tried gives bit-equal rows; the manifest says which for each engine.
"""

import contextlib
import functools
import io
import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from mezzotint.engines import device
from mezzotint.engines.backend import Array, EngineOptions, closed
from mezzotint.engines.backends import cuda
from mezzotint.engines.backends.onnxruntime_providers import CPU, ON_CUDA, providers
from mezzotint.engines.bundle_files import engine_file
from mezzotint.engines.component import Precision
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed, last_line
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.memory import trim_heap
from mezzotint.engines.rows import Rows, call_in_parts

logger = logging.getLogger(__name__)

_ERRORS_ONLY = 3  # of ONNX Runtime's severities; its warnings go to stderr past Python's logging


class ONNXRuntimeEngine:
    """One component in one session; ``gpu`` is where its arrays live, None is the host."""

    def __init__(
        self, session: ort.InferenceSession, spec: EngineEntry, options: EngineOptions, gpu: cuda.Gpu | None = None
    ) -> None:
        self.spec = spec
        self.device: str = session.get_providers()[0]
        self.like = np.empty(0, np.float32) if gpu is None else gpu.like
        self._session: ort.InferenceSession | None = session
        self._gpu = gpu
        self._place = ("cpu", 0) if gpu is None else ("cuda", gpu.index)
        self.row_counts = options.row_counts

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run rows float32 [rows, ...] of every input; outputs are new arrays. Raises EngineFailed."""
        if self._gpu is not None:
            self._gpu.use()
        arrays = [self._here(inputs[tensor.name]) for tensor in self.spec.inputs]
        outputs = call_in_parts(arrays, self.row_counts, self._call)
        return {tensor.name: output for tensor, output in zip(self.spec.outputs, outputs, strict=True)}

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Run ``inputs`` once, which makes the session allocate what their shapes need."""
        self.run(inputs)

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _call(self, arrays: list[Rows]) -> list[Rows]:
        if self._session is None:
            raise closed(self.spec)
        try:
            binding = self._session.io_binding()
            for tensor, array in zip(self.spec.inputs, arrays, strict=True):
                binding.bind_input(tensor.name, *self._place, np.float32, array.shape, device.address(array))
            for tensor in self.spec.outputs:
                binding.bind_output(tensor.name, *self._place)
            self._session.run_with_iobinding(binding)
            return [self._taken(value) for value in binding.get_outputs()]
        except Exception as error:  # ONNX Runtime's own errors have no other base
            shapes = [array.shape for array in arrays]
            raise EngineFailed(
                f"{self.spec.component} failed on {self.device} at {shapes}: {' '.join(str(error).split())}"
            ) from error

    def _here(self, array: Array) -> Array:
        placed = device.place(array, self.like)
        return device.xp(placed).ascontiguousarray(placed)

    def _taken(self, value: ort.OrtValue) -> Array:
        """Return a session's output as an array in the same memory."""
        return value.numpy() if self._gpu is None else device.xp(self.like).from_dlpack(value)


class ONNXRuntimeBackend:
    """Engines in ONNX files, with their weights beside them."""

    name = "onnxruntime"
    packs_each_shape = False

    def version(self, flavour: str = "") -> str:
        """Return ONNX Runtime's release; it has no flavours."""
        return str(ort.__version__)

    def devices(self) -> tuple[str, ...]:
        """Return the execution providers that are installed; that one is listed does not mean its hardware is there."""
        return tuple(ort.get_available_providers())

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """Return the precisions that a device has kernels for; the CPU runs float16 graphs too, but in float32."""
        provider, _ = self._provider(device or "cpu")
        common = (Precision.INT8, Precision.INT8_HYBRID, Precision.INT8_WEIGHTS)
        if provider == CPU:
            return (Precision.FP32, *common, Precision.INT4_WEIGHTS)
        return (Precision.FP32, Precision.FP16, *common)

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> ONNXRuntimeEngine:
        """Load one engine. Raises BundleError; DeviceNotFound also where the provider would leave it to the CPU."""
        name = options.device or spec.device
        provider, index = self._provider(name)
        stream = 0
        if provider in ON_CUDA and cuda.count():
            _load_cuda_libraries()
            stream = cuda.gpu(index).stream
        chain = providers(provider, index, spec, options, stream)
        path = engine_file(folder, spec)
        session = _session(path, chain, spec, options)
        started = session.get_providers()[0]
        if started != provider:
            _check_fallback(name, provider, started, spec, options)
        trim_heap()  # what loading has freed is up to half of what a session takes, and more
        return ONNXRuntimeEngine(session, spec, options, cuda.gpu(index) if started in ON_CUDA else None)

    def _provider(self, device: str) -> tuple[str, int]:
        """Return the provider that ``device`` names, and which of its devices. Raises DeviceNotFound."""
        name, _, index = device.lower().partition(":")
        found = {full.lower().removesuffix("executionprovider"): full for full in self.devices()}
        provider = found.get(name.removesuffix("executionprovider"))
        if provider is None or (index and (provider == CPU or not index.isdecimal())):
            raise DeviceNotFound(f"device {device}: onnxruntime finds no such device; found {', '.join(found)}")
        return provider, int(index or 0)


@functools.cache
def _load_cuda_libraries() -> None:
    """Load CUDA's libraries and cuDNN from NVIDIA's packages, where those are installed; else the system's are used."""
    if not hasattr(ort, "preload_dlls"):  # which came with 1.21
        return
    with contextlib.redirect_stdout(io.StringIO()) as said:  # a server's own first line there says that it is ready
        ort.preload_dlls()
    for line in said.getvalue().splitlines():
        logger.info("onnxruntime: %s", line)


def _session(
    path: Path, chain: Mapping[str, Mapping[str, str]], spec: EngineEntry, options: EngineOptions
) -> ort.InferenceSession:
    """Return a session on the first of ``chain`` that starts, which may be none of them but the CPU."""
    try:
        return ort.InferenceSession(
            str(path),
            _session_options(spec, options),
            providers=list(chain),
            provider_options=[dict(settings) for settings in chain.values()],
            enable_fallback=0,
        )
    except Exception as error:  # ONNX Runtime's own errors have no other base
        if isinstance(error, RuntimeError) and CPU not in chain:
            # TensorRT's provider raises this where it does not start, and others leave the session to the CPU
            return _session(path, {CPU: {}}, spec, options)
        raise BundleError(
            f"{path}: onnxruntime cannot load it on {next(iter(chain))} ({last_line(error)}); "
            "compile the bundle again or choose another device"
        ) from error


def _check_fallback(name: str, provider: str, started: str, spec: EngineEntry, options: EngineOptions) -> None:
    """Refuse another provider than was asked for, unless it is the CPU and the host allows that."""
    if started == CPU and options.gpu.allow_cpu_fallback:
        logger.warning(
            "device %s: %s does not start on this machine; %s runs on the CPU", name, provider, spec.component
        )
        return
    raise DeviceNotFound(
        f"device {name}: onnxruntime's {provider} does not start on this machine, and {spec.component} would "
        f"run on {started}; install what it needs, choose that device, or allow it by --allow-cpu-fallback"
    )


def _session_options(spec: EngineEntry, options: EngineOptions) -> ort.SessionOptions:
    settings = ort.SessionOptions()
    settings.log_severity_level = _ERRORS_ONLY
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.intra_op_num_threads = options.num_threads or available_cpus()
    settings.inter_op_num_threads = 1
    settings.enable_mem_pattern = False  # it keeps a plan for each shape, and gains nothing (measured)
    # Spin within a call, which is 1.4 times faster on two cores, but not after it: a server at rest uses no CPU.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
    settings.add_session_config_entry("session.force_spinning_stop", "1")
    if spec.precision is Precision.INT8_WEIGHTS:
        # Unpack the weights once at load, not in every call: 1.15 times faster, and nothing else is rounded.
        settings.add_session_config_entry("session.disable_quant_qdq", "1")
    if spec.precision is Precision.INT4_WEIGHTS:
        # Multiply in float32, as 1 says; left alone it rounds activations to int8, which is no faster.
        settings.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    return settings


BACKEND = ONNXRuntimeBackend()
