"""Which precisions a component is built at: what was asked for, what it gets instead, and what auto leaves out."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.compile.choose import CALIBRATED, check_precisions, fastest, is_calibrated, precisions
from mezzotint.compile.job import CompileJob
from mezzotint.compile.maker import Maker
from mezzotint.compile.stages import Stages
from mezzotint.engines.backends import get_backend
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import CompileError, EngineFailed
from tests.fake_manifest import fake_manifest
from tests.fakes import FakeEngine


def job(backend: str, precision: dict[str, str]) -> CompileJob:
    return CompileJob(source="", output=Path(), cache=Path(), backend=backend, precision=precision)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_auto_leaves_out_what_only_saves_memory(backend: str) -> None:
    assert Precision.INT4_WEIGHTS in get_backend(backend).precisions("cpu")
    for component in Component:
        assert Precision.INT4_WEIGHTS not in precisions(job(backend, {"": "auto"}), component)


@pytest.mark.parametrize(
    ("asked", "gets"),
    [
        ("int4-weights", ["int8-weights", "int4-weights", "int8-weights", "int8-weights", "fp32"]),
        ("int8", ["int8-weights", "int8", "int8", "int8-weights", "fp32"]),
        ("bf16", ["bf16", "bf16", "bf16", "bf16", "fp32"]),
    ],
)
def test_a_component_that_a_precision_is_too_coarse_for_gets_int8_weights(asked: str, gets: list[str]) -> None:
    assert [precisions(job("openvino", {"": asked}), component) for component in Component] == [[p] for p in gets]


def test_a_safety_checker_is_coarser_than_fp32_only_where_it_is_named() -> None:
    asked = job("openvino", {"": "bf16", "safety_checker": "int8"})
    assert precisions(asked, Component.SAFETY_CHECKER) == [Precision.INT8_WEIGHTS]
    assert len(precisions(job("openvino", {"": "fp32", "safety_checker": "auto"}), Component.SAFETY_CHECKER)) > 1


def test_only_a_component_that_is_built_at_int8_is_calibrated() -> None:
    asked = job("openvino", {"unet": "int8", "": "fp32"})
    assert [component for component in Component if is_calibrated(asked, component)] == [Component.UNET]
    whole = job("openvino", {"": "int8"})
    assert {component for component in Component if is_calibrated(whole, component)} == set(CALIBRATED)


@pytest.mark.parametrize(
    ("backend", "precision"), [("openvino", "fp8"), ("onnxruntime", "bf16"), ("tensorrt", "int4-weights")]
)
def test_what_a_backend_cannot_run_is_refused_before_any_work(backend: str, precision: str) -> None:
    with pytest.raises(CompileError, match=f"precision {precision}: {backend}"):
        check_precisions(job(backend, {"": precision}))


def test_where_a_device_has_no_fp32_others_are_timed_against_the_first() -> None:
    entry = fake_manifest("fake").engine(Component.UNET)
    found = fastest({value: FakeEngine(entry, []) for value in (Precision.FP16, Precision.INT8_WEIGHTS)})
    assert found["ratio_to_finest"].keys() == {"fp16", "int8-weights"}
    assert found["ratio_to_finest"]["fp16"] == 1.0


class NoDevice(Maker):
    """Builds nothing: every precision is too much for its device."""

    def _sound(self, value: Precision, *targets: Any) -> list[Any]:
        raise EngineFailed("out of memory")


def test_where_no_precision_runs_each_says_why(tmp_path: Path) -> None:
    maker = NoDevice(job("openvino", {"": "auto"}), Stages(tmp_path, lambda _: None), "", {}, "", None)
    target: Any = SimpleNamespace(component=Component.VAE_DECODER, name="vae_decoder")
    with pytest.raises(CompileError, match=r"vae_decoder: .* runs it at no precision \(fp32: out of memory; bf16: out"):
        maker.best(target)
