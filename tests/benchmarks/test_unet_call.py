"""The benchmark of the UNet's call: operations are counted as by hand, and int8 is what graph and runtime say it is."""

from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.sensitivity import groups, noise_to_signal, position_and_kind
from benchmarks.unet_call import operations, variants
from benchmarks.unet_call.__main__ import PASSES, all_variants
from benchmarks.unet_call.variants import Variant
from mezzotint.engines.component import Precision

CHANNELS, OUT, SIDE = 32, 128, 8


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 3×3 convolution to as many channels, and a linear layer on each pixel of what it gives."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((CHANNELS, CHANNELS, 3, 3), dtype=np.float32)
    linear = rng.standard_normal((CHANNELS, OUT), dtype=np.float32)
    shape = ["rows", CHANNELS, SIDE, SIDE]
    nodes = [
        helper.make_node("Conv", ["sample", "kernel"], ["inner"], "conv", pads=[1] * 4),
        helper.make_node("Transpose", ["inner"], ["last"], "turn", perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["last", "linear"], ["output"], "layer"),
    ]
    for node in nodes:
        path = repr(["", f"unet.down_blocks.1.resnets.0.{node.name}", node.name])
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=path)
    graph = helper.make_graph(
        nodes,
        "unet",
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", SIDE, SIDE, OUT])],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(linear, "linear")],
    )
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def call() -> dict[str, np.ndarray]:
    return {"sample": np.random.default_rng(1).standard_normal((2, CHANNELS, SIDE, SIDE), dtype=np.float32)}


def read(exported: Path, precision: Precision, work: Path) -> ov.Model:
    return variants.read(variants.make(Variant(str(precision), precision), exported, work), call())


def test_operations_are_two_for_each_multiplication(exported: Path, tmp_path: Path) -> None:
    gflop = operations.counted(read(exported, Precision.FP32, tmp_path))
    pixels = 2 * SIDE * SIDE
    by_hand = [2e-9 * pixels * CHANNELS * CHANNELS * 9, 2e-9 * pixels * CHANNELS * OUT]
    assert sorted(gflop.values(), reverse=True) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("precision", "names"),
    [("fp32", set()), ("int8-weights", set()), ("int8-hybrid", {"conv"}), ("int8", {"conv", "output"})],
)
def test_what_is_rounded_on_both_sides_is_int8(precision: str, names: set[str], exported: Path, tmp_path: Path) -> None:
    model = read(exported, Precision(precision), tmp_path)
    gflop, in_graph = operations.counted(model), operations.rounded(model)
    assert {name.split("/")[0] for name in in_graph} == names  # what makes an output is called as the output is
    share = operations.int8_share(variants.compiled(model), gflop, in_graph)
    expected = sum(work for name, work in gflop.items() if name in in_graph) / sum(gflop.values())
    assert share == pytest.approx(expected)


def test_a_profile_names_all_the_work(exported: Path, tmp_path: Path) -> None:
    model = read(exported, Precision.INT8, tmp_path)
    gflop = operations.counted(model)
    compiled = variants.compiled(model, PERF_COUNT=True)
    request = compiled.create_infer_request()
    request.infer(call())
    found = operations.kinds(compiled, request.profiling_info, gflop)
    assert sum(kind.gflop for kind in found) == pytest.approx(sum(gflop.values()))
    assert [kind.ms for kind in found] == sorted((kind.ms for kind in found), reverse=True)


def test_every_row_is_counted_from_one_before_it_or_after() -> None:
    rows = all_variants()
    names = [row.name for row in rows]
    assert len(set(names)) == len(names)
    assert {row.against for row in rows} <= {"", *names}
    assert {applied.__name__ for applied in PASSES} <= {name[2:] for name in names if name.startswith("+ ")}


def test_layers_are_grouped_by_position_and_kind(exported: Path) -> None:
    model = onnx.load(exported)
    assert position_and_kind(model.graph.node[0]) == "down_blocks.1 conv"
    assert [(group.name, group.nodes) for group in groups(model)] == [
        ("down_blocks.1 conv", {"conv"}),
        ("down_blocks.1 layer", {"layer"}),
    ]


def test_noise_is_a_share_of_the_signal() -> None:
    truth = np.array([3.0, 4.0])
    assert noise_to_signal(truth * 1.1, truth) == pytest.approx(0.01)
