"""What a plan takes to build, of a miniature's UNet."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks import tensorrt_build
from tests.conftest import CACHE


@pytest.mark.slow
def test_a_miniatures_plan_is_built_and_weighed(
    sd15_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.harness.RESULTS", tmp_path)
    options = ["--cache", str(CACHE), "--name", "miniature", "--max-rows", "2"]
    monkeypatch.setattr(sys, "argv", ["tensorrt_build", str(sd15_checkpoint), *options])
    tensorrt_build.main()
    (row,) = json.loads((tmp_path / "tensorrt-build-miniature.json").read_text(encoding="utf-8"))["rows"]
    assert row["precision"] == "fp16"
    assert 0 < row["ONNX MB"] < row["peak MiB"]
    assert row["seconds"] > 0
    assert row["plan MB"] > 0
