"""ONNX Runtime's providers get their settings under its own names."""

from pathlib import Path

import pytest

from mezzotint.engines.backend import EngineOptions, GpuOptions
from mezzotint.engines.backends.onnxruntime_providers import CUDA, TENSORRT, providers
from mezzotint.engines.component import Precision
from tests.tiny_onnx import tiny_spec

SPEC = tiny_spec(Path("unet.onnx"), "onnxruntime")


def test_cuda_runs_on_the_stream_of_our_arrays_within_its_part_of_the_memory() -> None:
    options = EngineOptions(gpu=GpuOptions(memory_limit=1 << 30))
    assert providers(CUDA, 1, SPEC, options, stream=99) == {
        CUDA: {
            "device_id": "1",
            "use_tf32": "0",
            "gpu_mem_limit": "1073741824",
            "arena_extend_strategy": "kSameAsRequested",
            "user_compute_stream": "99",
        }
    }
    assert providers(CUDA, 0, SPEC, EngineOptions()) == {CUDA: {"device_id": "0", "use_tf32": "0"}}


def test_tensorrt_builds_once_for_the_manifests_shapes_keeps_that_and_leaves_the_rest_to_cuda() -> None:
    chain = providers(TENSORRT, 0, SPEC, EngineOptions(cache_dir=Path("cache")))
    assert list(chain) == [TENSORRT, CUDA]
    assert chain[TENSORRT] == {
        "device_id": "0",
        "trt_profile_min_shapes": "sample:1x4x8x8,timestep:1",
        "trt_profile_opt_shapes": "sample:2x4x8x8,timestep:2",
        "trt_profile_max_shapes": "sample:8x4x64x64,timestep:8",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(Path("cache/tensorrt")),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(Path("cache/tensorrt")),
    }


@pytest.mark.parametrize(("precision", "is_fp16"), [(Precision.FP16, True), (Precision.FP32, False)])
def test_tensorrt_computes_in_halves_where_the_bundle_was_verified_so(precision: Precision, is_fp16: bool) -> None:
    settings = providers(TENSORRT, 0, SPEC.model_copy(update={"precision": precision}), EngineOptions())[TENSORRT]
    assert ("trt_fp16_enable" in settings) == is_fp16
    assert not any("cache" in name for name in settings)


def test_another_provider_is_told_its_device_alone() -> None:
    assert providers("DmlExecutionProvider", 1, SPEC, EngineOptions(), stream=5) == {
        "DmlExecutionProvider": {"device_id": "1"}
    }
