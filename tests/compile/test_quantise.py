"""Rounding of activations: which, over which range, and how close the rounded graph stays."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mezzotint.compile.calibrate import observe
from mezzotint.compile.graph.quantise import best_range, grid, round_activations, sensitive, sites
from mezzotint.compile.precision import derive
from mezzotint.engines.component import Precision
from mezzotint.engines.errors import CompileError
from tests.tiny_onnx import tiny_inputs, write_tiny_onnx


def quiet(_fraction: float) -> None:
    """Hear nothing of progress."""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_onnx(tmp_path_factory.mktemp("export") / "unet.onnx")


@given(low=st.floats(-1e4, 1e4), width=st.floats(0, 1e4))
def test_zero_is_on_every_grid(low: float, width: float) -> None:
    scale, zero = grid((low, low + width), symmetric=False)
    assert 0 <= int(zero) <= 255
    top = (255 - int(zero)) * float(scale)
    assert top >= low + width - 0.51 * float(scale) - 1e-6
    assert -int(zero) * float(scale) <= low + 0.51 * float(scale) + 1e-6 or low > 0


def test_an_outlier_does_not_coarsen_the_grid_of_all_others() -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[0] = 60.0
    low, high = best_range(values, float(values.min()), 60.0, symmetric=False)
    assert low < -2
    assert high < 60
    low, high = best_range(values, float(values.min()), 60.0, symmetric=True)
    assert low == -high
    assert high < 60


def test_only_calibrated_precisions_round_activations(source: Path) -> None:
    model = onnx.load(source)
    assert not sites(model, Precision.INT8_WEIGHTS)
    assert not sites(model, Precision.FP32)
    assert {site.node.op_type for site in sites(model, Precision.INT8_HYBRID)} == {"Conv"}
    assert {site.node.op_type for site in sites(model, Precision.INT8)} == {"Conv", "MatMul"}


def test_what_is_linear_in_the_states_of_the_text_keeps_float_activations() -> None:
    """Keys and values of text are the only layers on a graph input; the keys' product with queries goes with them."""
    weight = np.ones((8, 8), np.float32)
    made = {
        "keys": helper.make_node("MatMul", ["text", "w"], ["keys"]),
        "turned": helper.make_node("Transpose", ["keys"], ["turned"], perm=[0, 2, 1]),
        "normed": helper.make_node("LayerNormalization", ["hidden", "s"], ["normed"]),
        "queries": helper.make_node("MatMul", ["normed", "w"], ["queries"]),
        "own": helper.make_node("Transpose", ["queries"], ["own"], perm=[0, 2, 1]),
        "cross": helper.make_node("MatMul", ["queries", "turned"], ["cross"]),
        "self": helper.make_node("MatMul", ["queries", "own"], ["self"]),
        "p": helper.make_node("Softmax", ["cross"], ["p"]),
        "q": helper.make_node("Softmax", ["self"], ["q"]),
    }
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 8]) for name in ("text", "hidden")]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 4]) for name in ("p", "q")]
    weights = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(weight[0], "s")]
    model = helper.make_model(helper.make_graph(list(made.values()), "attention", inputs, outputs, weights))
    found = [(site.node.output[0], site.tensor) for site in sites(model, Precision.INT8)]
    assert found == [("queries", "normed"), ("self", "queries"), ("self", "own")]


def test_one_pair_serves_all_who_take_a_tensor(source: Path) -> None:
    model = onnx.load(source)
    tensors = {site.tensor for site in sites(model, Precision.INT8)}
    count = round_activations(model, Precision.INT8, dict.fromkeys(tensors, (-4.0, 4.0)))
    onnx.checker.check_model(model)
    assert count >= len(tensors)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == len(tensors)


def test_the_rounded_graph_stays_close_to_the_float32_one(source: Path, tmp_path: Path) -> None:
    feeds = tiny_inputs(8)
    ranges, outputs = observe(source, feeds, tmp_path, quiet)
    assert not list(tmp_path.iterdir())
    derive(source, tmp_path / "b.onnx", Precision.INT8, "onnxruntime", ranges)
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx")
    rounded = np.asarray(session.run(["output"], feeds)[0])
    noise = np.square(rounded - outputs["output"]).sum()
    assert 10 * np.log10(np.square(outputs["output"]).sum() / noise) > 25


def test_int8_without_ranges_says_what_is_missing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"no range is known of tensor .*calibrate first"):
        derive(source, tmp_path / "b.onnx", Precision.INT8, "openvino")


def test_the_layers_that_lose_most_keep_float_activations() -> None:
    """Shortcuts of the last up block, and each up block's last second feed forward layer, whatever their numbers."""
    kept = {
        "unet.up_blocks.2.resnets.1.conv_shortcut",
        "unet.up_blocks.1.attentions.2.transformer_blocks.0.ff.net.2",
        "unet.up_blocks.2.attentions.1.transformer_blocks.0.ff.net.2",
    }
    paths = (
        *kept,
        "unet.up_blocks.1.resnets.0.conv_shortcut",
        "unet.up_blocks.2.resnets.1.conv1",
        "unet.up_blocks.1.attentions.1.transformer_blocks.0.ff.net.2",
        "unet.up_blocks.2.attentions.1.transformer_blocks.0.ff.net.0.proj",
        "unet.down_blocks.3.resnets.0.conv_shortcut",
        "unet.down_blocks.1.attentions.2.transformer_blocks.0.ff.net.2",
        "vae.decoder.up_blocks.3.resnets.0.conv_shortcut",
    )
    nodes = [helper.make_node("Conv", ["x", "w"], [path], name=path) for path in paths]
    for node, path in zip(nodes, paths, strict=True):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(["", path, node.name]))
    model = helper.make_model(helper.make_graph([*nodes, helper.make_node("Relu", ["x"], ["y"])], "unet", [], []))
    assert sensitive(model) == kept
