"""Group norms as int8 engines run them: the same numbers, under the same name, and nothing else is touched."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from mezzotint.compile.graph.norms import channels_last_norms
from tests.compile.exports import exported

SHAPE = (2, 12, 5, 7)


class Normed(torch.nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.norm = torch.nn.GroupNorm(groups, SHAPE[1], eps=1e-6)
        self.conv = torch.nn.Conv2d(SHAPE[1], 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.nn.functional.silu(self.norm(x)))  # type: ignore[no-any-return]


class OfInstances(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.InstanceNorm2d(SHAPE[1], affine=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


def run(path: Path, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def rewritten(source: Path, target: Path) -> int:
    model = ir.load(source)
    count = channels_last_norms(model)
    ir.save(model, target)
    return count


@pytest.fixture(scope="module", params=[1, 3, 12])
def normed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a norm of so many groups."""
    return exported(Normed(request.param), SHAPE, tmp_path_factory.mktemp("normed") / "a.onnx")


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (20.0, 1.0), (0.0, 1e-3)])
def test_a_group_norm_computes_what_it_did(normed: Path, mean: float, deviation: float, tmp_path: Path) -> None:
    assert rewritten(normed, tmp_path / "b.onnx") == 1
    assert not {"InstanceNormalization"} & {node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node}
    x = mean + deviation * np.random.default_rng(1).standard_normal(SHAPE, dtype=np.float32)
    np.testing.assert_allclose(run(tmp_path / "b.onnx", x), run(normed, x), rtol=1e-4, atol=2e-4 * (1 + mean))


def test_a_constant_picture_has_no_negative_variance(normed: Path, tmp_path: Path) -> None:
    rewritten(normed, tmp_path / "b.onnx")
    x = np.full(SHAPE, 1000.1, np.float32)
    assert np.isfinite(run(tmp_path / "b.onnx", x)).all()


def test_what_comes_out_keeps_its_name(normed: Path, tmp_path: Path) -> None:
    """Ranges that were observed before the rewrite are looked up by it."""
    before = [node for node in onnx.load(normed).graph.node if node.op_type == "Add"]
    rewritten(normed, tmp_path / "b.onnx")
    after = {output: node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node for output in node.output}
    assert after[before[-1].output[0]] == "Add"


def test_a_norm_of_instances_with_weights_of_its_own_stays(tmp_path: Path) -> None:
    source = exported(OfInstances(), SHAPE, tmp_path / "a.onnx")
    before = [node.op_type for node in onnx.load(source).graph.node]
    assert "InstanceNormalization" in before
    assert rewritten(source, tmp_path / "b.onnx") == 0
    assert [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node] == before
