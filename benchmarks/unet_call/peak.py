"""What the machine multiplies at most, with the same runtime: the best of large linear layers and convolutions."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset13 as ops

from benchmarks.unet_call import variants

KINDS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}  # and what OpenVINO is told to compute in
_LINEAR = ((2048, 1280, 1280), (2048, 2048, 2048))  # rows, channels in and out
_CONVOLUTIONS = ((320, 64), (512, 32))  # channels in and out, side; 3×3
_SECONDS = 1.0

Floats = npt.NDArray[np.float32]


def measure_peaks() -> dict[str, float]:
    """Return the most GFLOP/s (GOP/s in int8) of each kind over several layers, each called for a while."""
    return {kind: max(_rate(shape, kernel, kind) for shape, kernel in _layers()) for kind in KINDS}


def _layers() -> list[tuple[list[int], list[int]]]:
    linear = [([rows, inner], [outer, inner]) for rows, inner, outer in _LINEAR]
    return linear + [([1, num, side, side], [num, num, 3, 3]) for num, side in _CONVOLUTIONS]


def _rate(shape: list[int], kernel: list[int], kind: str) -> float:
    """Return the GFLOP/s of one layer at its best call."""
    compiled = variants.compiled(_layer(shape, kernel, int8=kind == "int8"), INFERENCE_PRECISION_HINT=KINDS[kind])
    request = compiled.create_infer_request()
    values: Floats = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    request.infer([values])
    best, until = 1e9, time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        request.infer([values], share_inputs=True)
        best = min(best, time.perf_counter() - begun)
    positions = np.prod(shape) / shape[1]
    return float(2e-9 * positions * np.prod(kernel) / best)


def _layer(shape: list[int], kernel: list[int], *, int8: bool) -> ov.Model:
    taken = ops.parameter(shape, np.float32)
    weights = np.random.default_rng(1).integers(-127, 127, kernel, dtype=np.int8)
    node: Any = taken
    weight: Any = ops.constant(weights.astype(np.float32))
    if int8:
        low, high = (np.float32(end) for end in variants.NOMINAL_RANGE)
        node = ops.fake_quantize(taken, low, high, low, high, 256)
        scale = np.full([kernel[0], *(1 for _ in kernel[1:])], 1e-3, np.float32)
        weight = ops.multiply(ops.convert(ops.constant(weights), "f32"), scale)
    if len(kernel) == 2:
        product = ops.matmul(node, weight, transpose_a=False, transpose_b=True)
    else:
        product = ops.convolution(node, weight, [1, 1], [1, 1], [1, 1], [1, 1])
    # the largest value alone leaves the call, so that no copy of the product is timed
    return ov.Model([ops.reduce_max(product, np.arange(1, len(shape)))], [taken])
