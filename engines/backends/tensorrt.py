"""TensorRT: plans of ``tensorrt`` or ``tensorrt_rtx``, which have one API, on an NVIDIA GPU.

Built and refused here, never run here: the code below ``load`` has had no GPU under it. Its pure parts are in
``tensorrt_plan.py`` and tested; ``make test-gpu`` runs the rest where there is a GPU.

Arrays are CuPy's. Inputs are bound where they lie, outputs in one block of the engine's own, so that a call copies
nothing; there is one execution context for each profile that is used. Places that are left free, with no code until
somebody can run it: CUDA graphs would record ``_enqueue`` for each shape, as inputs are then copied into a fixed block;
weight streaming is ``weight_streaming_budget_v2``, set in ``_deserialised`` before the first context; refit replaces
weights behind ``_deserialised`` too, in plans that were built with REFIT.
"""

import functools
import logging
import math
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mezzotint.engines import device
from mezzotint.engines.backend import Array, EngineOptions, closed
from mezzotint.engines.backends import cuda
from mezzotint.engines.backends.cuda import Gpu
from mezzotint.engines.backends.tensorrt_plan import (
    FLOAT_BYTES,
    Profile,
    Shape,
    check_capability,
    check_tensors,
    choose_profile,
    layout,
)
from mezzotint.engines.bundle_files import engine_file
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.rows import padded, split_rows
from mezzotint.engines.tensorrt_flavour import find_flavour

logger = logging.getLogger(__name__)

_CUDA_ERROR = re.compile(r"cudaError \d+: ([^()]+)")
_KEPT_ERRORS = 8
_DTYPES = {"FLOAT": "float32"}  # TensorRT's names in the manifest's words


class TensorRTEngine:
    """One component in one plan, with a context for each profile that was used.

    Args:
        plan: the runtime's ``ICudaEngine``.
        spec: what the manifest says of it.
        gpu: where it was loaded.
        options: the host's.

    Raises:
        BundleError: the plan's inputs or outputs are not the manifest's.
    """

    def __init__(self, plan: Any, spec: EngineEntry, gpu: Gpu, options: EngineOptions) -> None:
        self.spec = spec
        self.device = f"cuda:{gpu.index}"
        self.row_counts = options.row_counts
        self._gpu = gpu
        self._plan = plan
        self._profiles = _profiles(plan, spec)
        self._contexts: dict[int, Any] = {}
        self._block = gpu.like
        self._lock = threading.Lock()  # contexts hold a call's shapes and addresses

    @property
    def like(self) -> Array:
        """An array of its GPU."""
        return self._gpu.like

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Enqueue a call of float32 [rows, ...] of every input; the GPU may finish later. Raises EngineFailed."""
        return self._run(inputs, self._kept_block)

    def prepare(self, inputs: Mapping[str, Array]) -> None:
        """Make the contexts of these shapes and run them once, beside the memory that served outputs lie in."""
        self._run(inputs, self._new_block)

    def close(self) -> None:
        """Free contexts, plan and memory."""
        with self._lock:
            self._contexts.clear()
            self._plan, self._block = None, self._gpu.like

    def _run(self, inputs: Mapping[str, Array], block: Callable[[int], Array]) -> dict[str, Array]:
        self._gpu.use()
        arrays = {tensor.name: self._here(inputs[tensor.name]) for tensor in self.spec.inputs}
        num_rows = next(iter(arrays.values())).shape[0]
        counts = split_rows(num_rows, self.row_counts)
        arrays = {name: padded(array, sum(counts)) for name, array in arrays.items()}
        outputs: dict[str, Array] = {}
        first = 0
        with self._lock:
            for count in counts:
                part = {name: array[first : first + count, ...] for name, array in arrays.items()}
                context, shapes = self._context(part)
                outputs = outputs or _laid_out({n: (sum(counts), *s[1:]) for n, s in shapes.items()}, block)
                made = {name: array[first : first + count, ...] for name, array in outputs.items()}
                self._enqueue(context, part | made)
                first += count
        return {name: array[:num_rows, ...] for name, array in outputs.items()}

    def _here(self, array: Array) -> Array:
        placed = device.place(array, self._gpu.like)
        return device.xp(placed).ascontiguousarray(placed)

    def _context(self, part: Mapping[str, Array]) -> tuple[Any, dict[str, Shape]]:
        """Return the context of the tightest profile, told the input shapes, and the output shapes that follow."""
        if self._plan is None:
            raise closed(self.spec)
        profile = choose_profile(self._profiles, {name: array.shape for name, array in part.items()})
        context = self._contexts.get(profile.index)
        if context is None:
            context = self._plan.create_execution_context()
            if context is None or not context.set_optimization_profile_async(profile.index, self._gpu.stream):
                raise EngineFailed(f"{self.spec.component}: no context for profile {profile.index}; is memory left?")
            self._contexts[profile.index] = context
        for name, array in part.items():
            if not context.set_input_shape(name, array.shape):
                raise EngineFailed(f"{self.spec.component} refuses {name} of {array.shape} on {self.device}")
        return context, {tensor.name: tuple(context.get_tensor_shape(tensor.name)) for tensor in self.spec.outputs}

    def _enqueue(self, context: Any, arrays: Mapping[str, Array]) -> None:
        """Bind every tensor where its array lies, and enqueue the call."""
        bound = [context.set_tensor_address(name, device.address(array)) for name, array in arrays.items()]
        if not all(bound) or not context.execute_async_v3(self._gpu.stream):
            shapes = {name: array.shape for name, array in arrays.items()}
            raise EngineFailed(
                f"{self.spec.component} failed on {self.device} at {shapes}; the log has TensorRT's reason"
            )

    def _kept_block(self, num_bytes: int) -> Array:
        """Return the block that served outputs lie in, larger where it is too small."""
        if self._block.shape[0] * FLOAT_BYTES < num_bytes:
            self._block = self._new_block(num_bytes)
        return self._block

    def _new_block(self, num_bytes: int) -> Array:
        like = self._gpu.like
        return device.xp(like).empty(num_bytes // FLOAT_BYTES, dtype=like.dtype)


class TensorRTBackend:
    """Plans, built for one flavour, version and kind of GPU."""

    name = "tensorrt"
    packs_each_shape = False

    def version(self, flavour: str = "") -> str:
        """Return the version of a flavour, by default of the first that is installed. Raises BundleError."""
        return str(find_flavour(flavour)[1].__version__)

    def precisions(self, device: str) -> tuple[Precision, ...]:
        """Return the precisions that plans are built in, whatever the GPU: a plan's own graph says which it has."""
        return tuple(p for p in Precision if p not in (Precision.BF16, Precision.INT8_BF16, Precision.INT4_WEIGHTS))

    def load(self, folder: Path, spec: EngineEntry, options: EngineOptions) -> TensorRTEngine:
        """Load one plan. Raises BundleError where it is another runtime's, DeviceNotFound where there is no GPU."""
        _, trt = find_flavour(spec.flavour)
        path = engine_file(folder, spec)
        gpu = cuda.gpu(cuda.device_index(options.device or "cuda"))
        check_capability(spec, gpu.capability)
        gpu.use()
        return TensorRTEngine(deserialised(trt, path), spec, gpu, options)


def deserialised(trt: Any, path: Path) -> Any:
    """Return the plan in a file as the runtime's engine, on the calling thread's GPU.

    Raises:
        DeviceNotFound: CUDA finds no GPU; the runtime itself returns None then and raises nothing.
        BundleError: the runtime refuses the plan, because of its version, the GPU's capability, or damage.
    """
    log = _log(trt)
    log.errors.clear()
    runtime = trt.Runtime(log)
    plan = runtime.deserialize_cuda_engine(path.read_bytes()) if runtime is not None else None
    if plan is not None:
        return plan
    reason = log.errors[0] if log.errors else "it gave no reason"
    if failed := _CUDA_ERROR.search(reason):
        raise DeviceNotFound(
            f"device cuda: {trt.__name__} cannot use a GPU here ({failed[1]}); install NVIDIA's driver or serve a "
            "bundle that was compiled for another backend"
        )
    raise BundleError(
        f"{path}: {trt.__name__} {trt.__version__} refuses the plan ({reason}); compile the bundle again on this "
        "machine, or for its GPU"
    )


@functools.cache
def _log(trt: Any) -> Any:
    """Return the logger of a flavour, which keeps errors, and passes them and warnings on; it takes one a process."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                del self.errors[:-_KEPT_ERRORS]
                self.errors.append(message.strip())
            if severity <= trt.ILogger.WARNING:
                logger.warning("%s: %s", trt.__name__, message.strip())

    return Log()


def _profiles(plan: Any, spec: EngineEntry) -> tuple[Profile, ...]:
    """Return the profiles of a plan whose tensors are the manifest's. Raises BundleError."""
    names = [plan.get_tensor_name(i) for i in range(plan.num_io_tensors)]
    dtypes = {name: _DTYPES.get(kind := plan.get_tensor_dtype(name).name, kind) for name in names}
    inputs = {name for name in names if plan.get_tensor_mode(name).name == "INPUT"}
    check_tensors(spec, {n: dtypes[n] for n in names if n in inputs}, {n: dtypes[n] for n in names if n not in inputs})
    found = []
    for i in range(plan.num_optimization_profiles):
        ranges = {name: [tuple(shape) for shape in plan.get_tensor_profile_shape(name, i)] for name in inputs}
        found.append(Profile(i, {n: r[0] for n, r in ranges.items()}, {n: r[2] for n, r in ranges.items()}))
    return tuple(found)


def _laid_out(shapes: Mapping[str, Shape], block: Callable[[int], Array]) -> dict[str, Array]:
    """Return arrays of these shapes in one block."""
    where = layout(shapes)
    memory = block(where.num_bytes)
    xp = device.xp(memory)
    first = {name: offset // FLOAT_BYTES for name, offset in where.offsets.items()}
    return {n: xp.reshape(memory[first[n] : first[n] + math.prod(shape)], shape) for n, shape in shapes.items()}


BACKEND = TensorRTBackend()
