"""Convolutions without zero points: the same numbers, at borders too, and only where it pays."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from mezzotint.compile.graph.zero_points import fold_zero_points
from mezzotint.compile.precision import derive
from mezzotint.engines.component import Precision

FIRST, BELOW = 16, 32
SAME = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
PADDED: list[dict[str, Any]] = [
    SAME,
    SAME | {"strides": [2, 2]},
    {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]},
    {"pads": [1, 1, 1, 1]},  # the kernel's own size
    {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "strides": [2, 2]},
]
RANGES = {"x": (-0.3, 2.0), "h": (-9.0, 12.0)}


def written(file: Path, deeper: dict[str, Any], *, bias: bool = True) -> Path:
    """Write a convolution at the first level, and one below it."""
    rng = np.random.default_rng(0)
    size = deeper.get("kernel_shape", [3, 3])
    weights = {
        "w1": rng.standard_normal((FIRST, FIRST, 3, 3)),
        "w2": rng.standard_normal((BELOW, FIRST, *size)),
        "b2": rng.standard_normal(BELOW),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h"], name="first", **SAME),
        helper.make_node("Conv", ["h", "w2", *(["b2"] if bias else [])], ["y"], name="below", **deeper),
    ]
    tensors = [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
    shape = ["rows", FIRST, "height", "width"]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", BELOW, "h", "w"])]
    graph = helper.make_graph(nodes, "levels", inputs, outputs, tensors[: 3 if bias else 2])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), file)
    return file


def derived(source: Path, target: Path, *, fold: bool) -> onnx.ModelProto:
    derive(source, target, Precision.INT8, "openvino", RANGES, without_zero_points=fold)
    return onnx.load(target)


def run(file: Path, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("deeper", PADDED)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (6, 4)])
def test_all_places_keep_their_values(tmp_path: Path, deeper: dict[str, Any], height: int, width: int) -> None:
    """Borders, corners, and pictures so small that a kernel covers them."""
    source = written(tmp_path / "source.onnx", deeper)
    plain, folded = tmp_path / "plain.onnx", tmp_path / "folded.onnx"
    derived(source, plain, fold=False)
    derived(source, folded, fold=True)
    x = np.random.default_rng(1).uniform(-0.3, 2, (2, FIRST, height, width)).astype(np.float32)
    expected = run(plain, x)
    np.testing.assert_allclose(run(folded, x), expected, atol=1e-5 * float(np.abs(expected).max()))


def test_a_convolution_without_a_bias_gets_one(tmp_path: Path) -> None:
    source = written(tmp_path / "source.onnx", SAME, bias=False)
    derived(source, tmp_path / "plain.onnx", fold=False)
    derived(source, tmp_path / "folded.onnx", fold=True)
    x = np.random.default_rng(1).uniform(-0.3, 2, (1, FIRST, 4, 4)).astype(np.float32)
    expected = run(tmp_path / "plain.onnx", x)
    np.testing.assert_allclose(run(tmp_path / "folded.onnx", x), expected, atol=1e-5 * float(np.abs(expected).max()))


def test_only_below_the_first_level_is_a_convolution_without_its_zero_point(tmp_path: Path) -> None:
    model = derived(written(tmp_path / "source.onnx", SAME), tmp_path / "folded.onnx", fold=True)
    restored = {node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
    inputs = {node.name: restored[node.input[0]] for node in model.graph.node if node.op_type == "Conv"}
    assert len(inputs["first"].input) == 3
    assert len(inputs["below"].input) == 2


def test_what_has_no_padding_or_no_zero_point_stays(tmp_path: Path) -> None:
    source = written(tmp_path / "source.onnx", SAME)
    assert not fold_zero_points(onnx.load(source))
    dilated = SAME | {"dilations": [2, 2], "pads": [2] * 4}
    positive = {"x": (-0.3, 2.0), "h": (0.0, 9.0)}
    for name, file, ranges in (
        ("positive", source, positive),
        ("plain", written(tmp_path / "one.onnx", {"kernel_shape": [1, 1], "pads": [0] * 4}), RANGES),
        ("dilated", written(tmp_path / "dilated.onnx", dilated), RANGES),
    ):
        derive(file, tmp_path / name, Precision.INT8, "openvino", ranges, without_zero_points=True)
        model = onnx.load(tmp_path / name)
        assert not any(node.name == "below.lifted" for node in model.graph.node)
