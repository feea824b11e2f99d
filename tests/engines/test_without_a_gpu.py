"""The real NVIDIA libraries on a machine without a GPU: each says in one sentence what is missing."""

from pathlib import Path

import pytest

from mezzotint.engines.backends import cuda
from tests.layered import ORT_GPU, RTX, layered_python, run_layered
from tests.tiny_onnx import write_tiny_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(cuda.count() > 0, reason="there is a GPU here, which these tests must not find"),
]

PLAN = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
from mezzotint.engines.backends import check_runtime
from mezzotint.engines.backends.tensorrt import BACKEND, deserialised
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.errors import MezzotintError
from tests.tiny_onnx import tiny_spec

def said(call):
    try:
        call()
    except MezzotintError as error:
        print(type(error).__name__, error)

folder = Path(sys.argv[1])
log = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(log)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
assert trt.OnnxParser(network, log).parse_from_file(str(folder / "unet.onnx"))
config = builder.create_builder_config()
config.num_compute_capabilities = 1
config.set_compute_capability(trt.ComputeCapability.SM89, 0)
profile = builder.create_optimization_profile()
profile.set_shape("sample", (1, 4, 8, 8), (2, 4, 8, 8), (8, 4, 64, 64))
profile.set_shape("timestep", (1,), (2,), (8,))
config.add_optimization_profile(profile)
plan = folder / "unet.plan"
plan.write_bytes(bytes(builder.build_serialized_network(network, config)))

said(lambda: deserialised(trt, plan))
said(lambda: deserialised(trt, folder / "unet.onnx"))
own = {"flavour": "tensorrt_rtx", "backend_version": trt.__version__}
for changed in ({}, {"backend_version": "1.0"}, {"flavour": "tensorrt"}):
    spec = tiny_spec(plan, "tensorrt").model_copy(update=own | changed)
    said(lambda: (check_runtime("tiny", spec), BACKEND.load(folder, spec, EngineOptions())))
"""


def test_tensorrt_rtx_refuses_plans_in_one_sentence(tmp_path: Path) -> None:
    write_tiny_onnx(tmp_path / "unet.onnx")
    said = run_layered(layered_python("tensorrt-rtx", *RTX), PLAN, tmp_path).splitlines()
    assert len(said) == 5
    assert said[0].startswith("DeviceNotFound device cuda: tensorrt_rtx cannot use a GPU here (CUDA driver version is")
    assert "unet.onnx: tensorrt_rtx 1.7.1.116 refuses the plan" in said[1]
    assert said[1].startswith("BundleError")
    assert said[2].startswith("DeviceNotFound device cuda")
    assert "unet was built for tensorrt_rtx 1.0, but 1.7.1.116 is installed" in said[3]
    assert "tensorrt is not installed, found tensorrt_rtx" in said[4]


FALLBACK = """
import logging
import sys
from pathlib import Path
import numpy as np
import onnxruntime
from mezzotint.engines.backend import EngineOptions, GpuOptions
from mezzotint.engines.backends.onnxruntime import BACKEND
from mezzotint.engines.errors import MezzotintError
from tests.tiny_onnx import tiny_inputs, tiny_spec

logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(message)s")
file = Path(sys.argv[1])
spec = tiny_spec(file, "onnxruntime")
print(onnxruntime.__version__, *BACKEND.devices())
for device in ("cuda", "tensorrt", "cuda:1"):
    try:
        BACKEND.load(file.parent, spec, EngineOptions(device=device, num_threads=1))
    except MezzotintError as error:
        print(type(error).__name__, error)
for device in ("cuda", "tensorrt"):
    allowed = EngineOptions(device=device, num_threads=1, gpu=GpuOptions(allow_cpu_fallback=True))
    engine = BACKEND.load(file.parent, spec, allowed)
    print(engine.device, np.isfinite(engine.run(tiny_inputs(2))["output"]).all())
"""


def test_onnxruntimes_gpu_build_never_falls_back_in_silence(tmp_path: Path) -> None:
    file = write_tiny_onnx(tmp_path / "unet.onnx")
    said = run_layered(layered_python("onnxruntime-gpu", *ORT_GPU), FALLBACK, file).splitlines()
    assert said[0].startswith("1.31.1")
    assert "CUDAExecutionProvider" in said[0]
    for name, provider, line in zip(
        ("cuda", "tensorrt", "cuda:1"), ("CUDA", "Tensorrt", "CUDA"), said[1:4], strict=True
    ):
        assert line.startswith(
            f"DeviceNotFound device {name}: onnxruntime's {provider}ExecutionProvider does not start"
        )
        assert "unet would run on CPUExecutionProvider" in line
    for name, lines in (("cuda", said[4:6]), ("tensorrt", said[6:8])):
        assert lines[0].startswith(f"WARNING device {name}: ")
        assert lines[0].endswith("does not start on this machine; unet runs on the CPU")
        assert lines[1] == "CPUExecutionProvider True"
