"""What stages that run engines are kept by, and whose ranges a built engine has."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mezzotint.compile import build, maker, measure, verify
from mezzotint.compile.job import CompileJob
from mezzotint.compile.maker import Maker
from mezzotint.compile.stages import Stages
from mezzotint.engines.component import Component, Precision
from tests.fake_manifest import fake_manifest

JOB = CompileJob(source="", output=Path(), cache=Path())


class Derived(Maker):
    """Makers whose graphs are derived elsewhere."""

    def _derive(self, target: Any, value: Precision) -> Any:
        return SimpleNamespace(folder=Path("derived"), detail={"stats": {}, "structure": ""})


def test_stages_that_run_engines_are_kept_by_the_threads_of_a_call_and_by_the_backend_s_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = Stages(tmp_path, lambda event: None)

    def inputs() -> dict[str, Any]:
        return Maker(JOB, stages, "", {}, "", None)._here(verify)

    known = inputs()
    assert known == inputs()
    monkeypatch.setattr(maker, "available_cpus", lambda: known["cpus"] + 1)
    assert inputs() != known
    monkeypatch.undo()
    monkeypatch.setattr(measure, "backend_digest", lambda name: f"other {name}")
    assert inputs()["code"].endswith("other openvino")


def test_a_backend_s_code_is_all_of_its_files() -> None:
    digests = {name: measure.backend_digest(name) for name in ("openvino", "onnxruntime", "tensorrt")}
    assert len(set(digests.values())) == 3
    assert all(len(digest) == 2 * 16 for digest in digests.values())


@pytest.mark.parametrize("device", ["", "CPU", "CPUExecutionProvider"])
def test_a_cpu_has_its_name_from_the_host(device: str) -> None:
    assert measure.device_name("openvino", device) == ""


def test_a_device_that_is_not_there_has_no_name() -> None:
    assert measure.device_name("openvino", "GPU.77") == ""


def test_an_engine_says_whose_ranges_it_has_and_not_those_of_another_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build", lambda onnx, folder, backend: [])
    calibration: Any = SimpleNamespace(taken={"unet": "base"})
    entry = fake_manifest().engine(Component.UNET)
    target: Any = SimpleNamespace(
        name="unet", component=Component.UNET, variant=entry.variant, inputs=entry.inputs, outputs=entry.outputs
    )
    target.axes = entry.axes
    made = Derived(JOB, Stages(tmp_path, lambda event: None), "1", {}, "", calibration)
    assert made.built(target, Precision.INT8).calibrated_on == "base"
    assert made.built(target, Precision.FP32).calibrated_on == ""
