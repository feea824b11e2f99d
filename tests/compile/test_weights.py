"""4-bit weights: which weights get them, the exact rounding, and that both runtimes read them and keep them packed."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from mezzotint.compile.precision import derive
from mezzotint.compile.verify import snr_db
from mezzotint.compile.weights import packed
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Precision
from tests.tiny_onnx import tiny_spec

# Of a layer against the same rounded weights in numpy: OpenVINO rounds activations on the fly and computes in bfloat16.
LEAST_DB = {"openvino": 30.0, "onnxruntime": 100.0}

Array = npt.NDArray[Any]


def layer(path: Path, weight: Array, *, transposed: bool = False) -> Path:
    """Write a linear layer, sample [rows, width] to output [rows, n]: of [width, n], or as a Gemm of [n, width]."""
    width, n = weight.shape[::-1] if transposed else weight.shape
    node = ("Gemm", {"transB": 1}) if transposed else ("MatMul", {})
    graph = helper.make_graph(
        [helper.make_node(node[0], ["sample", "weight"], ["output"], name="layer", **node[1])],
        "layer",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", n])],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def in_four_bits(path: Path, weight: Array, **changes: Any) -> Path:
    target = path / "layer.onnx"
    derive(layer(path / "source.onnx", weight, **changes), target, Precision.INT4_WEIGHTS, "openvino")
    onnx.checker.check_model(target, full_check=True)
    return target


def stored(file: Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rounded_by_hand(column: Array, size: int) -> tuple[list[int], list[np.float32]]:
    """Return a column's 4-bit values and the scales of its groups, one after the other."""
    values: list[int] = []
    scales: list[np.float32] = []
    for start in range(0, len(column), size):
        group = column[start : start + size]
        scales.append(np.float32(max(group, key=abs) / -8))
        values += [min(7, int(np.rint(value / scales[-1]))) for value in group]
    return values, scales


@pytest.mark.parametrize(("width", "size"), [(128, 64), (320, 64), (96, 32)])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_group_of_inputs_has_the_scale_that_puts_its_largest_at_minus_eight(
    tmp_path: Path, width: int, size: int, transposed: bool
) -> None:
    weight = normal(width, 48)
    file = in_four_bits(tmp_path, weight.T.copy() if transposed else weight, transposed=transposed)
    found = stored(file)
    values, scales = found["weight.stored"].astype(int), found["weight.scale"]
    assert found["weight.stored"].dtype == ml_dtypes.int4
    if transposed:
        values, scales = values.T, scales.T
    by_hand = [rounded_by_hand(column, size) for column in weight.T]
    np.testing.assert_array_equal(values, np.transpose([column for column, _ in by_hand]))
    np.testing.assert_array_equal(scales, np.transpose([column for _, column in by_hand]))
    assert onnx.load(file).opset_import[0].version == 21


def test_a_group_of_zeros_stays_zero(tmp_path: Path) -> None:
    weight = normal(128, 48)
    weight[64:, 3] = 0
    found = stored(in_four_bits(tmp_path, weight))
    assert not found["weight.stored"].astype(int)[64:, 3].any()
    assert np.isfinite(found["weight.scale"]).all()
    assert found["weight.scale"][1, 3] != 0


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("shape", "transposed"),
    [((512, 512), False), ((128, 64), False), ((96, 48), False), ((64, 320), True), ((72, 64), False)],
)
def test_both_runtimes_compute_with_the_rounded_weights(
    tmp_path: Path, backend: str, shape: tuple[int, int], transposed: bool
) -> None:
    weight = normal(*shape)
    file = in_four_bits(tmp_path, weight, transposed=transposed)
    found = stored(file)
    restored, scale = found["weight.stored"].astype(np.float32), found["weight.scale"]
    axis = 1 if transposed else 0
    restored *= np.repeat(scale, restored.shape[axis] // scale.shape[axis], axis=axis)
    assert 17 < snr_db(weight, restored) < 45
    spec = tiny_spec(file, backend, Precision.INT4_WEIGHTS)
    spec = spec.model_copy(update={"inputs": spec.inputs[:1]})
    x = normal(4, shape[axis], seed=1)
    engine = get_backend(backend).load(tmp_path, spec, EngineOptions(num_threads=1, row_counts=(4,)))
    assert snr_db(x @ (restored.T if transposed else restored), engine.run({"sample": x})["output"]) > LEAST_DB[backend]
    engine.close()


def test_a_width_that_no_group_divides_is_stored_as_int8_by_output_channel(tmp_path: Path) -> None:
    weight = normal(72, 64)
    found = stored(in_four_bits(tmp_path, weight))
    assert found["weight.stored"].dtype == np.int8
    assert found["weight.scale"].shape == (1, 64)
    assert np.all(np.abs(found["weight.stored"] * found["weight.scale"] - weight) <= found["weight.scale"] * 0.5001)


def test_two_values_share_a_byte_as_onnx_packs_them() -> None:
    for size in (6, 7):
        values = np.array([-8, 7, -1, 0, 3, -5, 6][:size], ml_dtypes.int4)
        assert packed(values).tobytes() == numpy_helper.from_array(values, "values").raw_data


def test_large_4_bit_weights_take_half_a_byte_in_the_data_file(tmp_path: Path) -> None:
    weight = normal(512, 512)
    derive(layer(tmp_path / "source.onnx", weight), tmp_path / "layer.onnx", Precision.INT4_WEIGHTS, "openvino")
    tensors = {
        tensor.name: tensor for tensor in onnx.load(tmp_path / "layer.onnx", load_external_data=False).graph.initializer
    }
    place = {entry.key: entry.value for entry in tensors["weight.stored"].external_data}
    assert int(place["length"]) == 512 * 512 // 2
    assert (tmp_path / "layer.onnx.data").stat().st_size == 512 * 512 // 2


def test_openvino_keeps_4_bit_weights_packed(tmp_path: Path) -> None:
    model = ov.Core().read_model(in_four_bits(tmp_path, normal(512, 512)))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    layers = [operation.get_rt_info() for operation in compiled.get_runtime_model().get_ops()]
    kinds = {info["layerType"].astype(str): info["runtimePrecision"].astype(str) for info in layers}
    assert kinds["FullyConnected"] == "i4"


def test_onnx_runtime_keeps_4_bit_weights_packed_and_unpacks_int8_ones_at_load(tmp_path: Path) -> None:
    for width, wanted in ((512, {"MatMulNBits"}), (72, {"MatMul"})):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        ort.InferenceSession(in_four_bits(tmp_path, normal(width, 64)), options, providers=["CPUExecutionProvider"])
        assert {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node} == wanted
