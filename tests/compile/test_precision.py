"""Each precision's graph against the float32 export on both runtimes: how close, how large, float32 outside."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mezzotint.compile.precision import derive
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import CompileError
from tests.tiny_onnx import tiny_inputs, tiny_spec, tiny_weights, write_tiny_onnx

OPTIONS = EngineOptions(num_threads=1, row_counts=(2,))
LARGE = ("conv", "up", "down")  # of the tiny graph's weights; its other convolutions touch latents

# Floors in dB, 6 dB or more below what was measured on the tiny graph; large weights 5 % off make 26 dB.
FLOOR_DB = {
    ("openvino", Precision.FP32): 110.0,
    ("openvino", Precision.FP16): 38.0,  # a CPU without float16 kernels computes in bfloat16
    ("openvino", Precision.BF16): 38.0,
    ("openvino", Precision.INT8_WEIGHTS): 36.0,
    ("openvino", Precision.INT4_WEIGHTS): 34.0,
    ("onnxruntime", Precision.FP32): 190.0,
    ("onnxruntime", Precision.FP16): 60.0,
    ("onnxruntime", Precision.INT8_WEIGHTS): 36.0,
    ("onnxruntime", Precision.INT4_WEIGHTS): 36.0,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("export") / "unet.onnx")


@pytest.fixture(scope="module")
def expected(source: Path) -> npt.NDArray[Any]:
    return run(source, "onnxruntime")


def run(file: Path, backend: str, precision: Precision = Precision.FP32) -> npt.NDArray[Any]:
    engine = get_backend(backend).load(file.parent, tiny_spec(file, backend, precision), OPTIONS)
    output: npt.NDArray[Any] = engine.run(tiny_inputs(8))["output"]
    engine.close()
    return output


def snr_db(reference: npt.NDArray[Any], output: npt.NDArray[Any]) -> float:
    noise = np.square(reference - output, dtype=np.float64).sum()
    return float(10 * np.log10(np.square(reference, dtype=np.float64).sum() / max(noise, 1e-30)))


def stored(model: onnx.ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize(("backend", "precision"), FLOOR_DB, ids=lambda value: str(value))
def test_a_precision_stays_close_to_float32(
    source: Path, expected: npt.NDArray[Any], tmp_path: Path, backend: str, precision: Precision
) -> None:
    derive(source, tmp_path / "unet.onnx", precision, backend)
    output = run(tmp_path / "unet.onnx", backend, precision)
    assert output.dtype == np.float32
    assert snr_db(expected, output) >= FLOOR_DB[backend, precision]


@pytest.mark.parametrize(("backend", "precision"), FLOOR_DB, ids=lambda value: str(value))
def test_inputs_and_outputs_stay_float32_and_the_graph_is_valid(
    source: Path, tmp_path: Path, backend: str, precision: Precision
) -> None:
    target = tmp_path / "unet.onnx"
    derive(source, target, precision, backend)
    onnx.checker.check_model(target, full_check=True)
    graph = onnx.load(target).graph
    tensors = [*graph.input, *graph.output]
    assert [tensor.name for tensor in tensors] == ["sample", "timestep", "output"]
    assert {tensor.type.tensor_type.elem_type for tensor in tensors} == {TensorProto.FLOAT}


@pytest.mark.parametrize(
    ("backend", "precision", "dtype", "least", "most"),
    [
        ("openvino", Precision.FP16, "float16", 0.50, 0.57),
        ("openvino", Precision.BF16, "bfloat16", 0.50, 0.57),
        ("openvino", Precision.INT8_WEIGHTS, "int8", 0.25, 0.36),
        ("onnxruntime", Precision.INT8_WEIGHTS, "int8", 0.25, 0.36),
        ("onnxruntime", Precision.FP16, "float16", 0.50, 0.57),
    ],
)
def test_large_weights_shrink(
    source: Path, tmp_path: Path, backend: str, precision: Precision, dtype: str, least: float, most: float
) -> None:
    stats = derive(source, tmp_path / "unet.onnx", precision, backend)
    weights = stored(onnx.load(tmp_path / "unet.onnx"))
    assert stats.source_bytes == sum(weight.nbytes for weight in tiny_weights().values())
    assert stats.target_bytes == sum(weight.nbytes for weight in weights.values())
    assert least <= stats.target_bytes / stats.source_bytes <= most
    assert 0.88 < stats.converted_share <= 1
    for name in LARGE:
        written = weights[name] if name in weights else weights[f"{name}.stored"]
        assert str(written.dtype) == dtype


def test_float32_changes_nothing(source: Path, tmp_path: Path) -> None:
    stats = derive(source, tmp_path / "unet.onnx", Precision.FP32, "openvino")
    assert (stats.num_converted, stats.converted_share) == (0, 0.0)
    weights = stored(onnx.load(tmp_path / "unet.onnx"))
    for name, weight in tiny_weights().items():
        np.testing.assert_array_equal(weights[name], weight)
        assert weights[name].dtype == weight.dtype


def test_int8_has_one_symmetric_scale_for_each_output_channel(source: Path, tmp_path: Path) -> None:
    stats = derive(source, tmp_path / "unet.onnx", Precision.INT8_WEIGHTS, "openvino")
    weights, floats = stored(onnx.load(tmp_path / "unet.onnx")), tiny_weights()
    assert stats.num_converted == len(LARGE)
    assert {name for name in weights if name.endswith(".stored")} == {f"{name}.stored" for name in LARGE}
    for name, shape in {"conv": (32, 1, 1, 1), "up": (1, 256), "down": (1, 32)}.items():
        scale = weights[f"{name}.scale"].reshape(shape)
        restored = weights[f"{name}.stored"] * scale
        assert np.all(np.abs(restored - floats[name]) <= scale * 0.5001)
        assert np.abs(weights[f"{name}.stored"]).max() == 127


def test_a_channel_of_zeros_stays_zero_in_int8(tmp_path: Path) -> None:
    weights = tiny_weights()
    weights["up"][:, 3] = 0
    derive(write_tiny_onnx(tmp_path / "a.onnx", weights), tmp_path / "b.onnx", Precision.INT8_WEIGHTS, "onnxruntime")
    found = stored(onnx.load(tmp_path / "b.onnx"))
    assert not found["up.stored"][:, 3].any()
    assert np.isfinite(found["up.scale"]).all()
    assert np.isfinite(run(tmp_path / "b.onnx", "onnxruntime", Precision.INT8_WEIGHTS)).all()


def test_norms_and_the_timesteps_sines_stay_float32_in_a_float16_graph(source: Path, tmp_path: Path) -> None:
    derive(source, tmp_path / "unet.onnx", Precision.FP16, "onnxruntime")
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "unet.onnx"))
    types = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.value_info, *model.graph.input]}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    by_op = {node.op_type: {types[name] for name in node.input} for node in model.graph.node if all(node.input)}
    for op in ("InstanceNormalization", "LayerNormalization", "Sin", "Cos"):
        assert by_op[op] == {TensorProto.FLOAT}
    for op in ("Conv", "MatMul", "Gemm", "Sigmoid", "Softmax"):
        assert by_op[op] == {TensorProto.FLOAT16}
    assert types["scales"] == types["frequencies"] == TensorProto.FLOAT


def test_float16_keeps_large_values_finite_and_a_masks_infinity_infinite(tmp_path: Path) -> None:
    mask = np.array([[0, -np.inf, -3.4e38, 1e-3]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "mask"], ["y"])],
        "mask",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 4])],
        [numpy_helper.from_array(mask, "mask")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "a.onnx")
    derive(tmp_path / "a.onnx", tmp_path / "b.onnx", Precision.FP16, "onnxruntime")
    found = stored(onnx.load(tmp_path / "b.onnx"))["mask"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found[0, :3], np.array([0, -np.inf, -65504], np.float16))


def test_weights_beside_the_export_go_beside_the_result(
    source: Path, expected: npt.NDArray[Any], tmp_path: Path
) -> None:
    apart = tmp_path / "export" / "unet.onnx"
    apart.parent.mkdir()
    onnx.save(onnx.load(source), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    target = tmp_path / "derived" / "other.onnx"
    target.parent.mkdir()
    derive(apart, target, Precision.FP32, "onnxruntime")
    np.testing.assert_array_equal(run(target, "onnxruntime"), expected)
    weights = stored(onnx.load(target))
    assert all(np.array_equal(weights[name], weight) for name, weight in tiny_weights().items())


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_large_tensors_lie_in_one_data_file_that_both_runtimes_find(tmp_path: Path, backend: str) -> None:
    weight = np.random.default_rng(0).standard_normal((512, 512)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["sample", "a"], ["x"]), helper.make_node("MatMul", ["x", "b"], ["output"])],
        "large",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["rows", 512])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 512])],
        [numpy_helper.from_array(weight, "a"), numpy_helper.from_array(weight.T.copy(), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "source.onnx")
    target = tmp_path / "unet.onnx"
    derive(tmp_path / "source.onnx", target, Precision.INT8_WEIGHTS, backend)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source.onnx", "unet.onnx", "unet.onnx.data"]
    assert target.stat().st_size < 20_000
    assert 2 * 512 * 512 <= (tmp_path / "unet.onnx.data").stat().st_size < 2 * 512 * 512 + 4096
    spec = tiny_spec(target, backend, Precision.INT8_WEIGHTS)
    spec = spec.model_copy(update={"inputs": spec.inputs[:1]})
    x = np.random.default_rng(1).standard_normal((2, 512), dtype=np.float32)
    output = get_backend(backend).load(tmp_path, spec, OPTIONS).run({"sample": x})["output"]
    assert snr_db(x @ weight @ weight.T, output) > 35
    derive(source := tmp_path / "source.onnx", target, Precision.FP32, backend)
    assert source.is_file()
    assert (tmp_path / "unet.onnx.data").stat().st_size == 2 * 4 * 512 * 512


def test_nothing_of_the_exporters_source_lines_is_written(source: Path, tmp_path: Path) -> None:
    derive(source, tmp_path / "unet.onnx", Precision.FP32, "openvino")
    assert b"/some/folder" in source.read_bytes()
    assert b"/some/folder" not in (tmp_path / "unet.onnx").read_bytes()


def test_the_same_export_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    for precision in (Precision.INT8_WEIGHTS, Precision.FP16):
        for name in ("a.onnx", "b.onnx"):
            derive(source, tmp_path / name, precision, "onnxruntime")
        assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_weights_off_by_five_percent_are_told_from_rounding(
    expected: npt.NDArray[Any], source: Path, tmp_path: Path
) -> None:
    weights = {name: weight * np.float32(1.05) if name in LARGE else weight for name, weight in tiny_weights().items()}
    doctored = run(write_tiny_onnx(tmp_path / "unet.onnx", weights), "onnxruntime")
    derive(source, tmp_path / "int8.onnx", Precision.INT8_WEIGHTS, "onnxruntime")
    rounded = run(tmp_path / "int8.onnx", "onnxruntime", Precision.INT8_WEIGHTS)
    assert snr_db(expected, doctored) + 6 < snr_db(expected, rounded)


@pytest.mark.parametrize("precision", [Precision.BF16, Precision.INT8_BF16])
def test_bf16_is_refused_for_onnxruntime(precision: Precision, source: Path, tmp_path: Path) -> None:
    expected = rf"precision {precision}: onnxruntime's CPU provider has no bfloat16 kernels; use "
    with pytest.raises(CompileError, match=expected):
        derive(source, tmp_path / "unet.onnx", precision, "onnxruntime")
    assert not list(tmp_path.iterdir())


def test_an_unknown_backend_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"backend 'tpu': there are precision passes for .*, tensorrt only"):
        derive(source, tmp_path / "unet.onnx", Precision.FP32, "tpu")


def test_the_export_is_never_overwritten(source: Path) -> None:
    before = source.read_bytes()
    with pytest.raises(CompileError, match="is the export itself"):
        derive(source, source, Precision.INT8_WEIGHTS, "openvino")
    assert source.read_bytes() == before


def test_a_file_that_is_no_model_or_is_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    for name in ("a.onnx", "missing.onnx"):
        with pytest.raises(CompileError, match=rf"{name}: is no ONNX model that can be read"):
            derive(tmp_path / name, tmp_path / "b.onnx", Precision.FP32, "openvino")


def test_a_missing_data_file_is_refused(source: Path, tmp_path: Path) -> None:
    apart = tmp_path / "unet.onnx"
    onnx.save(onnx.load(source), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(CompileError, match=r"unet\.onnx: its weights cannot be read"):
        derive(apart, tmp_path / "b.onnx", Precision.FP32, "openvino")


def test_a_graph_that_cannot_be_typed_is_refused_for_float16(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mystery", ["x"], ["hidden"], domain="other"), helper.make_node("Relu", ["hidden"], ["y"])],
        "custom",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("other", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "a.onnx")
    with pytest.raises(CompileError, match="precision fp16: the type of hidden in the graph is unknown; use fp32"):
        derive(tmp_path / "a.onnx", tmp_path / "b.onnx", Precision.FP16, "onnxruntime")
