"""One ONNX file into one TensorRT plan, strongly typed: every precision is the graph's own, no flag chooses one.

``tensorrt_rtx`` builds for a named compute capability on a machine without a GPU; ``tensorrt`` for the GPU it finds.
"""

import contextlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mezzotint.engines.errors import CompileError
from mezzotint.engines.folders import whole_file
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.tensorrt_flavour import RTX, find_flavour

logger = logging.getLogger(__name__)

Shape: TypeAlias = tuple[int, ...]
Progress: TypeAlias = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What plans are built for.

    Attributes:
        compute_capability: of the GPU, such as ``8.9``.
        memory_bytes: the scratch memory on the GPU that a layer may take.
        flavour: the library to build with; empty is the one that is installed.
    """

    compute_capability: str
    memory_bytes: int = 4 << 30
    flavour: str = ""


def check_target(options: PlanOptions) -> None:
    """Refuse before any work what cannot be built for. Raises BundleError, CompileError."""
    flavour, trt = find_flavour(options.flavour)
    if flavour == RTX:
        _capability(trt, options.compute_capability)
    elif not re.fullmatch(r"\d+\.\d", options.compute_capability):
        raise CompileError(
            f"compute_capability={options.compute_capability}: must be NVIDIA's number of this GPU, such as 9.0"
        )


def profile_shapes(entry: EngineEntry) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Return the least, the best and the largest shape of each input, from the engine's axes."""
    least, best, most = entry.shapes_at("min"), entry.shapes_at("opt"), entry.shapes_at("max")
    return {name: (least[name], best[name], most[name]) for name in best}


def build_plan(onnx: Path, target: Path, entry: EngineEntry, options: PlanOptions, tell: Progress, cache: Path) -> None:
    """Build the plan ``target`` of ``onnx`` with one profile over all axes of ``entry``.

    Args:
        onnx: the graph, with its weights beside it.
        target: the file to write.
        entry: names the inputs and the ranges of their axes.
        options: the GPU and the limit on memory.
        tell: hears the fraction that is done.
        cache: a folder for the timing cache, which ``tensorrt`` alone has.

    Raises:
        CompileError: the graph cannot be parsed, by the first node's name and op, or no plan is found; or the flavour
            does not build for that compute capability.
        BundleError: no TensorRT is installed.
    """
    flavour, trt = find_flavour(options.flavour)
    log = _log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # what its binding makes of a null pointer
        raise CompileError(
            f"{flavour} {trt.__version__} cannot start ({log.errors or error}); is a GPU here?"
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, log, onnx)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.memory_bytes)
    config.progress_monitor = _monitor(trt, tell)
    if flavour == RTX:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, options.compute_capability), 0)
    profile = builder.create_optimization_profile()
    for name, shapes in profile_shapes(entry).items():
        profile.set_shape(name, *shapes)
    config.add_optimization_profile(profile)
    with _timing_cache(config, flavour, cache / f"timing-{trt.__version__}-{options.compute_capability}.bin"):
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = log.errors[0] if log.errors else "it gave no reason"
        raise CompileError(f"{onnx.stem}: {flavour} {trt.__version__} finds no plan for it ({reason})")
    target.write_bytes(memoryview(plan))


def _parse(trt: Any, network: Any, log: Any, onnx: Path) -> None:
    parser = trt.OnnxParser(network, log)
    if parser.parse_from_file(str(onnx)):
        return
    error = parser.get_error(0)
    where = f"node {error.node_name()!r} ({error.node_operator()})" if error.node_operator() else "the file"
    raise CompileError(
        f"{onnx.stem}: {trt.__name__} cannot parse {where}: {error.desc().strip()}; build another precision"
    )


def _capability(trt: Any, text: str) -> Any:
    """Return the flavour's name of a compute capability. Raises CompileError."""
    member = f"SM{text.replace('.', '')}"
    known = [name for name in trt.ComputeCapability.__members__ if name.startswith("SM")]
    if member not in known or "." not in text:
        offered = ", ".join(f"{name[2:-1]}.{name[-1]}" for name in known)
        raise CompileError(
            f"compute_capability={text}: {trt.__name__} {trt.__version__} builds for {offered}; for others install "
            "tensorrt on the target, and finish an --onnx-only bundle there with `mezzotint build`"
        )
    return trt.ComputeCapability.__members__[member]


def _log(trt: Any) -> Any:
    """Return a logger that keeps errors for our own, and hands the rest to Python's."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message.strip())
            logger.debug("%s: %s", trt.__name__, message.strip())

    return Log()


def _monitor(trt: Any, tell: Progress) -> Any:
    """Return what the builder tells of its phases: the outermost one's steps are the fraction that is done."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: Mapping[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if not parent_phase:
                self.steps = {phase_name: num_steps}

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                tell(min(1.0, (step + 1) / max(1, self.steps[phase_name])))
            return True

        def phase_finish(self, phase_name: str) -> None:
            if phase_name in self.steps:
                tell(1.0)

    return Monitor()


@contextlib.contextmanager
def _timing_cache(config: Any, flavour: str, file: Path) -> Any:
    """Let the builder use the timings of earlier builds, and keep this one's; those of tensorrt_rtx do nothing."""
    if flavour == RTX:
        yield
        return
    known = config.create_timing_cache(file.read_bytes() if file.is_file() else b"")
    if known is None or not config.set_timing_cache(known, ignore_mismatch=False):  # another version's, or damaged
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    yield
    with whole_file(file) as unfinished:
        unfinished.write_bytes(memoryview(config.get_timing_cache().serialize()))
