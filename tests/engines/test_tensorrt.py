"""TensorRT's calls as numbers, and the engine's own code on a runtime that reads and writes host memory by address.

What a GPU alone can show is in ``tests/gpu``; what the real library refuses without one in ``test_without_a_gpu.py``.
"""

import ctypes
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mezzotint.engines import backends
from mezzotint.engines.backend import EngineOptions
from mezzotint.engines.backends.cuda import Gpu, device_index
from mezzotint.engines.backends.tensorrt import TensorRTEngine
from mezzotint.engines.backends.tensorrt_plan import (
    Profile,
    check_capability,
    choose_profile,
    layout,
)
from mezzotint.engines.errors import BundleError, DeviceNotFound, EngineFailed
from mezzotint.engines.manifest import EngineEntry, TensorSpec
from tests.tiny_onnx import tiny_inputs, tiny_spec

Shape = tuple[int, ...]
BUCKETS = ((1, 2), (3, 8))


def profile(index: int, least: int, most: int) -> Profile:
    return Profile(
        index,
        {"sample": (least, 4, 8, 8), "timestep": (least,)},
        {"sample": (most, 4, 16, 16), "timestep": (most,)},
    )


def shapes(rows: int, side: int = 8) -> dict[str, Shape]:
    return {"sample": (rows, 4, side, side), "timestep": (rows,)}


def test_a_call_takes_the_tightest_bucket_that_holds_it() -> None:
    buckets = [profile(0, 1, 16), profile(1, 1, 2), profile(2, 3, 8)]
    assert [choose_profile(buckets, shapes(rows)).index for rows in (1, 2, 3, 8, 9)] == [1, 1, 2, 2, 0]


@pytest.mark.parametrize("wrong", [shapes(17), shapes(2, side=4), shapes(2, side=24), {"sample": (2, 4, 8)}], ids=str)
def test_a_call_outside_of_all_buckets_is_refused_with_what_was_built(wrong: dict[str, Shape]) -> None:
    with pytest.raises(EngineFailed, match=r"fits no profile of the plan; it was built for .*\(1, 4, 8, 8\)"):
        choose_profile([profile(0, 1, 16)], wrong)


def test_outputs_lie_one_after_the_other_at_whole_blocks_of_256_bytes() -> None:
    found = layout({"output": (3, 5), "feature": (64,), "last": (65,)})
    assert found.offsets == {"output": 0, "feature": 256, "last": 512}
    assert found.num_bytes == 1024


def entry(**changed: Any) -> EngineEntry:
    given = {"flavour": "tensorrt_rtx", "backend_version": "1.7.1", "compute_capability": "8.9"}
    return tiny_spec(Path("unet.plan"), "tensorrt").model_copy(update=given | changed)


def test_a_plan_of_another_version_or_gpu_is_refused_with_both_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "installed_version", lambda _: "1.8.0")
    with pytest.raises(BundleError, match=r"unet was built for tensorrt_rtx 1\.7\.1, but 1\.8\.0 is installed"):
        backends.check_runtime("emoji", entry())
    check_capability(entry(), "8.9")
    with pytest.raises(BundleError, match=r"capability 8\.9, but this one has 12\.0; .*--compute-capability 12\.0"):
        check_capability(entry(), "12.0")


def test_gpus_are_named_as_cuda_names_them() -> None:
    assert [device_index(name) for name in ("cuda", "CUDA:1", "gpu:0")] == [0, 1, 0]
    for name in ("cpu", "cuda:one"):
        with pytest.raises(DeviceNotFound, match=f"device {name}: is no GPU"):
            device_index(name)


class HostContext:
    """An execution context in host memory: ``output`` is twice the sample plus the timestep, ``feature`` the sample."""

    def __init__(self, calls: list[tuple[int, int]]) -> None:
        self.calls = calls
        self.profile = -1
        self.shapes: dict[str, Shape] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profile = index
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        return self.shapes["sample"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        low, high = BUCKETS[self.profile]
        rows = self.shapes["timestep"][0]
        assert low <= rows <= high
        sample, time = self._at("sample"), self._at("timestep")[:, None, None, None]
        self._at("output", self.shapes["sample"])[...] = 2 * sample + time
        self._at("feature", self.shapes["sample"])[...] = sample
        self.calls.append((self.profile, rows))
        return stream == 7

    def _at(self, name: str, shape: Shape | None = None) -> np.ndarray:
        shape = shape or self.shapes[name]
        memory = (ctypes.c_float * math.prod(shape)).from_address(self.addresses[name])
        return np.ctypeslib.as_array(memory).reshape(shape)


class HostPlan:
    """A plan with two buckets of rows, whose engine runs in host memory."""

    num_io_tensors = 4
    num_optimization_profiles = len(BUCKETS)
    names = ("sample", "timestep", "output", "feature")

    def __init__(self, dtype: str = "FLOAT") -> None:
        self.calls: list[tuple[int, int]] = []
        self.dtype = dtype

    def get_tensor_name(self, i: int) -> str:
        return self.names[i]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.dtype)

    def get_tensor_mode(self, name: str) -> Any:
        return SimpleNamespace(name="INPUT" if name in self.names[:2] else "OUTPUT")

    def get_tensor_profile_shape(self, name: str, index: int) -> list[Shape]:
        rest = (4, 8, 8) if name == "sample" else ()
        return [(BUCKETS[index][0], *rest), (BUCKETS[index][1], *rest), (BUCKETS[index][1], *rest)]

    def create_execution_context(self) -> HostContext:
        return HostContext(self.calls)


def load(plan: HostPlan, *row_counts: int, stream: int = 7) -> TensorRTEngine:
    given = entry()
    feature = TensorSpec(name="feature", role="feature", dtype="float32", axes=("rows", 4, "height", "width"))
    spec = given.model_copy(update={"outputs": (*given.outputs, feature)})
    gpu = Gpu(0, np.empty(0, np.float32), stream, lambda: None, "8.9")
    return TensorRTEngine(plan, spec, gpu, EngineOptions(row_counts=row_counts))


def assert_computed(outputs: Any, inputs: dict[str, np.ndarray]) -> None:
    expected = 2 * inputs["sample"] + inputs["timestep"][:, None, None, None]
    np.testing.assert_array_equal(outputs["output"], expected)
    np.testing.assert_array_equal(outputs["feature"], inputs["sample"])


@pytest.mark.parametrize(
    ("rows", "row_counts", "calls"),
    [
        (8, (1, 2, 4, 8), [(1, 8)]),
        (7, (1, 2, 4), [(1, 4), (0, 2), (0, 1)]),
        (3, (1,), [(0, 1)] * 3),
        (3, (4,), [(1, 4)]),
    ],
)
def test_parts_of_a_call_are_bound_where_their_rows_lie(
    rows: int, row_counts: tuple[int, ...], calls: list[tuple[int, int]]
) -> None:
    plan = HostPlan()
    inputs = tiny_inputs(rows)
    assert_computed(load(plan, *row_counts).run(inputs), inputs)
    assert plan.calls == calls


def test_arrays_that_are_not_contiguous_are_bound_by_their_values() -> None:
    inputs = tiny_inputs(4)
    turned = {"sample": inputs["sample"].transpose(0, 1, 3, 2), "timestep": inputs["timestep"][::-1]}
    assert_computed(load(HostPlan(), 4).run(turned), turned)


def test_preparing_beside_a_server_leaves_the_outputs_of_its_last_call() -> None:
    engine, inputs = load(HostPlan(), 1, 2, 4), tiny_inputs(4)
    outputs = engine.run(inputs)
    engine.prepare({name: np.zeros_like(array) for name, array in inputs.items()})
    assert_computed(outputs, inputs)
    assert engine.run(inputs)["output"].ctypes.data == outputs["output"].ctypes.data


def test_a_call_that_tensorrt_refuses_fails_in_one_sentence_and_a_closed_engine_says_so() -> None:
    with pytest.raises(EngineFailed, match=r"unet failed on cuda:0 at .*the log has TensorRT's reason"):
        load(HostPlan(), 2, stream=8).run(tiny_inputs(2))
    engine = load(HostPlan(), 2)
    engine.close()
    with pytest.raises(EngineFailed, match="unet was closed; load its bundle again"):
        engine.run(tiny_inputs(2))


def test_a_plan_whose_tensors_are_not_the_manifests_is_refused() -> None:
    with pytest.raises(
        BundleError, match=r"unet: the plan has the inputs \{'sample': 'HALF', .*manifest says .*float32"
    ):
        load(HostPlan("HALF"), 2)
