"""What the machine multiplies at most, with the same runtime: the best of a few large matrix products."""

import time

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from benchmarks.unet_call.variants import CONFIG

_SIZES = ((1024, 1024, 1024), (2048, 1280, 1280), (2048, 2048, 2048), (1024, 4096, 1024))
_SECONDS = 1.5


def measure_peak(*, int8: bool) -> float:
    """Return the most GFLOP/s (GOP/s in int8) of a linear layer over several sizes, each called for a while."""
    return max(_rate(rows, inner, outer, int8=int8) for rows, inner, outer in _SIZES)


def _rate(rows: int, inner: int, outer: int, *, int8: bool) -> float:
    compiled = ov.Core().compile_model(_layer(rows, inner, outer, int8=int8), "CPU", CONFIG)
    request = compiled.create_infer_request()
    values = np.random.default_rng(0).standard_normal((rows, inner), dtype=np.float32)
    request.infer([values])
    best, until = 1e9, time.perf_counter() + _SECONDS
    while time.perf_counter() < until:
        begun = time.perf_counter()
        request.infer([values], share_inputs=True)
        best = min(best, time.perf_counter() - begun)
    return 2e-9 * rows * inner * outer / best


def _layer(rows: int, inner: int, outer: int, *, int8: bool) -> ov.Model:
    taken = ops.parameter([rows, inner], np.float32)
    weights = np.random.default_rng(1).integers(-127, 127, (outer, inner), dtype=np.int8)
    if int8:
        node = ops.fake_quantize(taken, *(np.float32(v) for v in (-4, 4, -4, 4)), 256)
        kernel = ops.multiply(ops.convert(ops.constant(weights), "f32"), np.full((outer, 1), 1e-3, np.float32))
    else:
        node, kernel = taken, ops.constant(weights.astype(np.float32))
    # the largest value of each row alone leaves the call, so that no copy of the product is timed
    product = ops.matmul(node, kernel, transpose_a=False, transpose_b=True)
    return ov.Model([ops.reduce_max(product, np.int64([1]))], [taken])
