"""ONNX Runtime engines: providers by name and never another one, rows split freely, errors of one sentence."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mezzotint.engines.backend import EngineOptions, GpuOptions
from mezzotint.engines.backends import openvino
from mezzotint.engines.backends.onnxruntime import BACKEND
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from tests.conftest import ROOT
from tests.tiny_onnx import tiny_inputs, tiny_spec, write_tiny_onnx


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("onnxruntime") / "unet.onnx")


@pytest.mark.parametrize("row_counts", [(1,), (2, 4), (1, 2, 4, 8)])
def test_split_and_padded_rows_equal_one_call_bit_for_bit(file: Path, row_counts: tuple[int, ...]) -> None:
    spec = tiny_spec(file, "onnxruntime")
    whole = BACKEND.load(file.parent, spec, EngineOptions(num_threads=1, row_counts=(8,))).run(tiny_inputs(8))["output"]
    engine = BACKEND.load(file.parent, spec, EngineOptions(num_threads=1, row_counts=row_counts))
    for num_rows in (8, 7, 3, 1):
        output = engine.run({name: rows[:num_rows] for name, rows in tiny_inputs(8).items()})["output"]
        assert output.dtype == np.float32
        np.testing.assert_array_equal(output, whole[:num_rows])


def test_both_runtimes_compute_the_same_function(file: Path) -> None:
    options = EngineOptions(num_threads=1, row_counts=(2,))
    ours = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), options).run(tiny_inputs(2))["output"]
    other = openvino.BACKEND.load(file.parent, tiny_spec(file, "openvino"), options).run(tiny_inputs(2))["output"]
    np.testing.assert_allclose(ours, other, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_a_provider_goes_by_its_short_or_full_name_in_any_case(file: Path, name: str) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(device=name, num_threads=1))
    assert engine.device == "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["warp", "cpu:1", "cpu:x"])
def test_a_provider_that_is_not_there_is_refused_with_those_that_are(file: Path, name: str) -> None:
    with pytest.raises(DeviceNotFound, match=rf"device {name}: onnxruntime finds no such device; found .*cpu"):
        BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(device=name))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_would_fall_back_to_the_cpu_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A GPU build lists its providers whether or not there is a GPU; the session itself is a real one.
    monkeypatch.setattr(type(BACKEND), "devices", lambda _: ("CUDAExecutionProvider", "CPUExecutionProvider"))
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime may have a GPU to run on")
    with pytest.raises(DeviceNotFound, match=r"device cuda: onnxruntime's CUDAExecutionProvider does not start"):
        BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(device="cuda"))
    with pytest.raises(DeviceNotFound, match=r"device cuda:one: onnxruntime finds no such device; found cuda, cpu"):
        BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(device="cuda:one"))


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_cpu_takes_over_where_that_was_allowed_and_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(type(BACKEND), "devices", lambda _: ("CUDAExecutionProvider", "CPUExecutionProvider"))
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime may have a GPU to run on")
    allowed = EngineOptions(device="cuda", num_threads=1, gpu=GpuOptions(allow_cpu_fallback=True))
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), allowed)
    assert engine.device == "CPUExecutionProvider"
    assert caplog.messages == [
        "device cuda: CUDAExecutionProvider does not start on this machine; unet runs on the CPU"
    ]


def test_outputs_are_the_sessions_own_memory_and_outlive_the_next_call(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=1, row_counts=(2,)))
    first = engine.run(tiny_inputs(2))["output"]
    before = first.copy()
    second = engine.run(tiny_inputs(2, seed=2))["output"]
    assert not first.flags.owndata
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, before)


def test_inputs_that_are_not_contiguous_are_bound_by_their_values(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=1, row_counts=(2,)))
    inputs = tiny_inputs(2)
    turned = inputs | {"sample": inputs["sample"].transpose(0, 1, 3, 2)}
    same = inputs | {"sample": np.ascontiguousarray(turned["sample"])}
    np.testing.assert_array_equal(engine.run(turned)["output"], engine.run(same)["output"])


def test_a_missing_engine_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"unet\.onnx: engine file is missing; compile the bundle again"):
        BACKEND.load(tmp_path, tiny_spec(Path("unet.onnx"), "onnxruntime"), EngineOptions())


def test_a_file_that_is_no_model_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "unet.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match=r"unet\.onnx: onnxruntime cannot load it on CPUExecutionProvider") as caught:
        BACKEND.load(tmp_path, tiny_spec(Path("unet.onnx"), "onnxruntime"), EngineOptions())
    assert "\n" not in str(caught.value)


def test_a_shape_that_the_graph_refuses_fails_in_one_sentence(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=1))
    inputs = tiny_inputs(1) | {"sample": np.zeros((1, 5, 8, 8), np.float32)}
    with pytest.raises(EngineFailed, match=r"unet failed on CPUExecutionProvider at \[\(1, 5, 8, 8\), \(1,\)\]: .+"):
        engine.run(inputs)


def test_a_closed_engine_says_so(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=1))
    engine.close()
    with pytest.raises(EngineFailed, match="unet was closed"):
        engine.run(tiny_inputs(1))


def test_an_engine_at_rest_uses_no_cpu(file: Path) -> None:
    engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=2))
    engine.run(tiny_inputs(1))
    started = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - started < 0.1
    engine.close()


def test_the_cpu_has_kernels_for_float32_and_for_weights_in_eight_and_four_bits() -> None:
    found = (Precision.FP32, Precision.INT8, Precision.INT8_HYBRID, Precision.INT8_WEIGHTS, Precision.INT4_WEIGHTS)
    assert BACKEND.precisions("cpu") == BACKEND.precisions("") == found
    assert BACKEND.version()


GROWTH = """
import sys
from pathlib import Path
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends.onnxruntime import BACKEND
from tests.tiny_onnx import tiny_spec

def kept() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

file = Path(sys.argv[1])
before = kept()
engine = BACKEND.load(file.parent, tiny_spec(file, "onnxruntime"), EngineOptions(num_threads=1))
print(kept() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_loading_frees_is_given_back(tmp_path: Path) -> None:
    weight = np.ones((320, 320, 3, 3), np.float32)
    num_layers = 12
    names = [f"x{i}" for i in range(num_layers)] + ["output"]
    same = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    graph = helper.make_graph(
        [helper.make_node("Conv", [names[i], f"w{i}"], [names[i + 1]], **same) for i in range(num_layers)],
        "convolutions",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, 320, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 320, 8, 8])],
        [numpy_helper.from_array(weight, f"w{i}") for i in range(num_layers)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "unet.onnx", save_as_external_data=True, location="weights")
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "unet.onnx")],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert int(done.stdout) < 1.5 * num_layers * weight.nbytes  # twice the weights where it is kept
