"""Rewrites of exported graphs: each applies where it should, and what it leaves computes the same."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch

from mezzotint.compile.graph.rewrite import (
    Rewrite,
    rewrite,
    split_gated_units,
    split_shortcuts,
    upsample_by_phases,
)
from tests.compile.exports import exported


class Gated(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 24)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.linear(x).chunk(2, dim=-1)
        return value * torch.nn.functional.gelu(gate)  # type: ignore[no-any-return]


class Doubled(torch.nn.Module):
    def __init__(self, padding: int = 1, scale: float = 2.0, mode: str = "nearest") -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 5, 3, padding=padding)
        self.scale, self.mode = scale, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        larger = torch.nn.functional.interpolate(x, scale_factor=self.scale, mode=self.mode)
        return self.conv(larger)  # type: ignore[no-any-return]


class Shortcut(torch.nn.Module):
    def __init__(self, kernel: int = 1) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(6, 4, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([x, x * 2], dim=1))  # type: ignore[no-any-return]


def run(path: Path, x: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    session = onnxruntime.InferenceSession(path)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


@pytest.mark.parametrize(
    ("module", "shape", "apply", "gone"),
    [
        (Gated(), (2, 7, 8), split_gated_units, "Split"),
        (Doubled(), (2, 3, 5, 7), upsample_by_phases, "Resize"),
        (Shortcut(), (2, 3, 5, 7), split_shortcuts, "Concat"),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_rewrite_computes_what_the_graph_did(
    module: torch.nn.Module, shape: tuple[int, ...], apply: Rewrite, gone: str, tmp_path: Path
) -> None:
    source, target = exported(module, shape, tmp_path / "a.onnx"), tmp_path / "b.onnx"
    assert gone in {node.op_type for node in onnx.load(source).graph.node}
    assert rewrite(source, target, [apply]) == {apply.__name__: 1}
    assert gone not in {node.op_type for node in onnx.load(target).graph.node}
    x = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    np.testing.assert_allclose(run(target, x), run(source, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "apply"),
    [
        (Doubled(padding=0), upsample_by_phases),
        (Doubled(scale=3.0), upsample_by_phases),
        (Doubled(mode="bilinear"), upsample_by_phases),
        (Shortcut(kernel=3), split_shortcuts),
    ],
    ids=["no padding", "three times", "bilinear", "3x3"],
)
def test_other_graphs_stay_as_they_are(module: torch.nn.Module, apply: Rewrite, tmp_path: Path) -> None:
    source = exported(module, (2, 3, 5, 7), tmp_path / "a.onnx")
    before = [node.op_type for node in onnx.load(source).graph.node]
    assert rewrite(source, tmp_path / "b.onnx", [apply]) == {apply.__name__: 0}
    assert [node.op_type for node in onnx.load(tmp_path / "b.onnx").graph.node] == before
