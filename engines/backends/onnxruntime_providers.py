"""The settings of ONNX Runtime's execution providers, under its own names. Imports no runtime.

https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html. CUDA's
were run on one H200; TensorRT's have been refused alone, where its library is missing.
"""

from typing import Literal

from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.component import Precision
from mezzotint.engines.manifest import EngineEntry

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

ON_CUDA = (CUDA, TENSORRT)
"""The providers whose arrays live on an NVIDIA GPU."""

Settings = dict[str, str]


def providers(
    provider: str, index: int, spec: EngineEntry, options: EngineOptions, stream: int = 0
) -> dict[str, Settings]:
    """Return the providers that an engine may use, the one that was asked for first, with the settings of each.

    TensorRT leaves what it has no kernel for to CUDA. ``stream`` is the address of the one to run on, 0 is their own.
    """
    match provider:
        case "CUDAExecutionProvider":
            return {CUDA: _cuda(index, options, stream)}
        case "TensorrtExecutionProvider":
            return {TENSORRT: _tensorrt(index, spec, options, stream), CUDA: _cuda(index, options, stream)}
        case _:
            return {provider: {"device_id": str(index)} if index else {}}


def _cuda(index: int, options: EngineOptions, stream: int) -> Settings:
    settings = {"device_id": str(index), "use_tf32": "0"}  # fp32 is float32, not products of 10 bits
    if options.gpu.memory_limit is not None:
        # an arena that doubles would meet its limit with half of it unused
        settings |= {"gpu_mem_limit": str(options.gpu.memory_limit), "arena_extend_strategy": "kSameAsRequested"}
    return settings | _on(stream)


def _tensorrt(index: int, spec: EngineEntry, options: EngineOptions, stream: int) -> Settings:
    """Build for the manifest's shapes at once, not anew for each that comes, and keep what was built."""
    settings = {"device_id": str(index)}
    settings |= {f"trt_profile_{at}_shapes": _shapes(spec, at) for at in ("min", "opt", "max")}
    if spec.precision is Precision.FP16:
        settings["trt_fp16_enable"] = "1"
    if options.gpu.memory_limit is not None:
        settings["trt_max_workspace_size"] = str(options.gpu.memory_limit)
    if options.cache_dir is not None:
        kept = str(options.cache_dir / "tensorrt")
        settings |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": kept}
        settings |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": kept}
    return settings | _on(stream)


def _on(stream: int) -> Settings:
    return {"user_compute_stream": str(stream)} if stream else {}


def _shapes(spec: EngineEntry, at: Literal["min", "opt", "max"]) -> str:
    """Return ``sample:1x4x16x16,timestep:1``, the shapes of all inputs at one end of their ranges."""
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in spec.shapes_at(at).items())
