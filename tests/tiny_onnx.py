"""A tiny float32 ONNX graph with the parts of a UNet that matter to precision and batching, and data for it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from mezzotint.engines.component import Component, Precision
from mezzotint.engines.manifest import AxisRange, EngineEntry, TensorSpec

CHANNELS = 32
HIDDEN = 256

Array = npt.NDArray[np.float32]


def tiny_weights(seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Random weights by name; "conv", "up" and "down" are the ones large enough to be converted."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, fan_in: int) -> Array:
        values: Array = (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        return values

    return {
        "conv_in": normal(CHANNELS, 4, 3, 3, fan_in=36),
        "frequencies": np.geomspace(1, 1e-3, CHANNELS // 2).astype(np.float32)[None],
        "time": normal(CHANNELS, CHANNELS, fan_in=CHANNELS),
        "time_bias": normal(CHANNELS, fan_in=1),
        "conv": normal(CHANNELS, CHANNELS, 3, 3, fan_in=9 * CHANNELS),
        "gamma": 1 + normal(CHANNELS, fan_in=16),
        "beta": normal(CHANNELS, fan_in=16),
        "up": normal(CHANNELS, HIDDEN, fan_in=CHANNELS),
        "down": normal(HIDDEN, CHANNELS, fan_in=HIDDEN),
        "conv_out": normal(4, CHANNELS, 3, 3, fan_in=9 * CHANNELS),
        "to_tokens": np.array([0, CHANNELS, -1], np.int64),
        "spatial": np.array([2, 3], np.int64),
        "column": np.array([1], np.int64),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }


def write_tiny_onnx(path: Path, weights: dict[str, npt.NDArray[Any]] | None = None) -> Path:
    """Write the graph: sample [rows, 4, h, w] and timestep [rows] to output [rows, 4, 2h, 2w]."""
    node = helper.make_node
    same: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        node("Unsqueeze", ["timestep", "column"], ["t"]),
        node("Mul", ["t", "frequencies"], ["angles"]),
        node("Sin", ["angles"], ["sin"]),
        node("Cos", ["angles"], ["cos"]),
        node("Concat", ["sin", "cos"], ["waves"], axis=-1),
        node("Gemm", ["waves", "time", "time_bias"], ["embedding"], transB=1),
        node("Unsqueeze", ["embedding", "spatial"], ["shift"]),
        node("Conv", ["sample", "conv_in"], ["x0"], **same),
        node("Add", ["x0", "shift"], ["x1"]),
        node("InstanceNormalization", ["x1", "gamma", "beta"], ["x2"]),
        node("Sigmoid", ["x2"], ["gate"]),
        node("Mul", ["x2", "gate"], ["x3"]),
        node("Conv", ["x3", "conv"], ["x4"], **same),
        node("Shape", ["x4"], ["shape"]),
        node("Reshape", ["x4", "to_tokens"], ["x5"]),
        node("Transpose", ["x5"], ["x6"], perm=[0, 2, 1]),
        node("LayerNormalization", ["x6", "gamma", "beta"], ["x7"]),
        node("MatMul", ["x7", "up"], ["x8"]),
        node("Softmax", ["x8"], ["x9"]),
        node("MatMul", ["x9", "down"], ["x10"]),
        node("Add", ["x6", "x10"], ["x11"]),
        node("Transpose", ["x11"], ["x12"], perm=[0, 2, 1]),
        node("Reshape", ["x12", "shape"], ["x13"]),
        node("Resize", ["x13", "", "scales"], ["x14"], mode="nearest"),
        node("Conv", ["x14", "conv_out"], ["output"], **same),
    ]
    inputs = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["rows", 4, "height", "width"]),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, ["rows"]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["rows", 4, "height2", "width2"])]
    initialisers = [numpy_helper.from_array(array, name) for name, array in (weights or tiny_weights()).items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initialisers, doc_string="made in /some/folder")
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


SIDE = AxisRange(min=8, opt=8, max=64)


def tiny_spec(file: Path, backend: str, precision: Precision = Precision.FP32) -> EngineEntry:
    """Return the manifest entry of an engine file made of the graph."""
    return EngineEntry(
        component=Component.UNET,
        backend=backend,
        backend_version="any",
        device="cpu",
        precision=precision,
        files={file.name: "0" * 64},
        inputs=(
            TensorSpec(name="sample", role="latents", dtype="float32", axes=("rows", 4, "height", "width")),
            TensorSpec(name="timestep", role="timestep", dtype="float32", axes=("rows",)),
        ),
        outputs=(TensorSpec(name="output", role="output", dtype="float32", axes=("rows", 4, "height", "width")),),
        axes={"rows": AxisRange(min=1, opt=2, max=8), **dict.fromkeys(("height", "width"), SIDE)},
        row_classes=((1, 2, 4, 8),),
    )


def tiny_inputs(num_rows: int, seed: int = 1) -> dict[str, Array]:
    """Return different rows: 8 x 8 latents at timesteps 0 to 999."""
    rng = np.random.default_rng(seed)
    return {
        "sample": rng.standard_normal((num_rows, 4, 8, 8), dtype=np.float32),
        "timestep": rng.uniform(0, 999, num_rows).astype(np.float32),
    }
