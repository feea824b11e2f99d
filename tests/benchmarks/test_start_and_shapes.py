"""What the benchmarks of starts and of shapes read and state."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from benchmarks.processes import cpu_seconds, memory_mib
from benchmarks.shapes import arrays, row_of, shape_of
from tests.fake_manifest import unets

UNET = unets(step_cache=False)[0]


@pytest.mark.parametrize(
    ("variant", "shape"),
    [("1 row", "[1,4,8,8]"), ("2 rows", "[2,4,8,8]"), ("1..2 rows", "[1..2,4,8,8]"), ("any shape", "[?,4,?,?]")],
)
def test_a_variant_is_a_shape_of_every_input(variant: str, shape: str) -> None:
    assert shape_of(UNET, UNET.inputs[0].axes, variant) == ov.PartialShape(shape)


def test_a_row_is_the_same_alone_and_beside_another() -> None:
    for one, two in zip(arrays(UNET, 1), arrays(UNET, 2), strict=True):
        np.testing.assert_array_equal(one, two[:1])


def test_a_variant_says_whether_it_has_the_bits_of_the_fixed_shapes() -> None:
    def turn(bits: str, ms: float) -> dict[str, object]:
        by_rows = {"1": bits, "2": bits}
        return {"ms": {"1": ms, "2": 2 * ms}, "digest": by_rows, "bytes": 3 << 20, "compile_s": 1.0}

    fixed = {"1 row": turn("a", 10.0), "2 rows": turn("a", 10.0)}
    same = row_of(Path("b"), "1..2 rows", [turn("a", 10.0), turn("a", 12.0)], fixed)
    other = row_of(Path("b"), "any shape", [turn("a", 10.0), turn("b", 12.0)], fixed)
    assert (same["bits of the fixed shape"], other["bits of the fixed shape"]) == ("yes", "no")
    assert (same["ms, 1 row"], same["ms, 2 rows"], same["resident MiB"]) == (11.0, 22.0, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process takes")
def test_memory_and_cpu_time_are_those_of_the_process() -> None:
    before, used = memory_mib(os.getpid())["anonymous"], cpu_seconds(os.getpid())
    held = np.ones(64 << 20, dtype=np.uint8)
    until = time.process_time() + 0.1
    while time.process_time() < until:
        held[:1000] += 1
    after = memory_mib(os.getpid())
    assert 60 <= after["anonymous"] - before <= 80
    assert after["peak"] >= after["resident"] >= after["anonymous"]
    assert 0.05 <= cpu_seconds(os.getpid()) - used <= 5
