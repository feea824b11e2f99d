"""Norms that say what they measured and take what was measured elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from mezzotint.compile.checkpoint import load_checkpoint
from mezzotint.compile.graph.statistics import GIVEN, with_statistics
from mezzotint.compile.tile_decoder import record_tile
from mezzotint.engines.errors import CompileError
from mezzotint.engines.manifest import INNER, STATISTICS
from mezzotint.engines.tiles import RING
from tests.compile.exports import exported

SHAPE = (2, 12, 9, 11)
GROUPS, OTHER_GROUPS = 3, 4


class TwoNorms(torch.nn.Module):
    """One norm of pictures, and one of their pixels in a row, as attention has it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.GroupNorm(GROUPS, SHAPE[1], eps=1e-6)
        self.conv = torch.nn.Conv2d(SHAPE[1], 8, 3, padding=1)
        self.flat = torch.nn.GroupNorm(OTHER_GROUPS, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(torch.nn.functional.silu(self.norm(x)))
        return self.flat(y.flatten(2)).reshape(y.shape)  # type: ignore[no-any-return]


class NoNorm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(SHAPE[1], 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The network as it was exported, and with statistics."""
    source = exported(TwoNorms(), SHAPE, tmp_path_factory.mktemp("norms") / "a.onnx")
    model = ir.load(source)
    given, inner, made = with_statistics(model)
    assert (given.name, inner.name, made.name) == (GIVEN, INNER, STATISTICS)
    assert inner.axes == ("rows", 1)
    assert given.axes == made.axes == ("rows", 2, GROUPS + OTHER_GROUPS)
    target = source.with_name("b.onnx")
    ir.save(model, target)
    return source, target


def run(path: Path, **inputs: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
    if "given" in inputs:
        inputs = {"inner": np.zeros((SHAPE[0], 1), np.float32), **inputs}
    return [np.asarray(output) for output in onnxruntime.InferenceSession(path).run(None, inputs)]


def picture(seed: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32) * (1 + seed) + seed


def nothing() -> npt.NDArray[np.float32]:
    return np.zeros((SHAPE[0], 2, GROUPS + OTHER_GROUPS), np.float32)


def test_given_nothing_each_norm_measures_what_it_is_shown(graphs: tuple[Path, Path]) -> None:
    x = picture(1)
    (plain,) = run(graphs[0], x=x)
    pixels, statistics = run(graphs[1], x=x, given=nothing())
    np.testing.assert_allclose(pixels, plain, rtol=1e-4, atol=1e-4)
    grouped = x.reshape(SHAPE[0], GROUPS, -1)
    np.testing.assert_allclose(statistics[:, 0, :GROUPS], grouped.mean(axis=2), rtol=1e-4)
    np.testing.assert_allclose(statistics[:, 1, :GROUPS], grouped.std(axis=2), rtol=1e-4)


def test_a_part_of_a_picture_with_the_whole_ones_statistics_is_that_part_of_the_whole(
    graphs: tuple[Path, Path],
) -> None:
    x = picture(2)
    whole, statistics = run(graphs[1], x=x, given=nothing())
    other = picture(3)
    other[..., :3, :] = x[..., :3, :]  # of which two rows do not see what is below them
    part, own = run(graphs[1], x=other, given=statistics)
    np.testing.assert_allclose(part[..., :2, :], whole[..., :2, :], rtol=1e-4, atol=1e-4)
    assert not np.allclose(own, statistics, rtol=0.1)


def test_rows_may_differ_in_what_they_are_given(graphs: tuple[Path, Path]) -> None:
    x = picture(4)
    own, statistics = run(graphs[1], x=x, given=nothing())
    given = nothing()
    given[1] = 2 * statistics[1]
    mixed, _ = run(graphs[1], x=x, given=given)
    np.testing.assert_array_equal(mixed[0], own[0])
    assert not np.allclose(mixed[1], own[1])


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_border_counts_as_much_as_in_the_picture(graphs: tuple[Path, Path], share: float) -> None:
    x = picture(5)
    _, statistics = run(graphs[1], x=x, given=nothing(), inner=np.full((SHAPE[0], 1), share, np.float32))
    weights = np.ones(SHAPE[2:])
    inside = np.zeros(SHAPE[2:], bool)
    inside[RING:-RING, RING:-RING] = True
    weights[inside], weights[~inside] = share / inside.sum(), (1 - share) / (~inside).sum()
    grouped = x.reshape(SHAPE[0], GROUPS, -1, *SHAPE[2:]).astype(np.float64)
    mean = (grouped * weights).sum(axis=(3, 4)).mean(axis=2)
    square = (grouped**2 * weights).sum(axis=(3, 4)).mean(axis=2)
    np.testing.assert_allclose(statistics[:, 0, :GROUPS], mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(statistics[:, 1, :GROUPS], np.sqrt(square - mean**2), rtol=1e-3)


def test_a_decoder_without_norms_is_one_sentence(tmp_path: Path) -> None:
    model = ir.load(exported(NoNorm(), SHAPE, tmp_path / "a.onnx"))
    with pytest.raises(CompileError, match="the decoder has no group norms"):
        with_statistics(model)


def test_torch_s_decoder_is_the_truth_for_norms_that_are_given_nothing_and_for_those_that_are(
    sd15_checkpoint: Path,
) -> None:
    checkpoint = load_checkpoint(sd15_checkpoint)
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8), dtype=np.float32)
    pixels = np.zeros((2, 3, 64, 64), np.float32)
    found = record_tile(checkpoint, {"vae_decoder/latents": latents, "vae_decoder/pixels": pixels})
    rows = {name.removeprefix("vae_decoder_tile/"): array for name, array in found.items()}
    assert {name: len(array) for name, array in rows.items()} == dict.fromkeys(
        ("latents", "pixels", GIVEN, INNER, STATISTICS), 4
    )
    for name in ("latents", STATISTICS):
        np.testing.assert_array_equal(rows[name][:2], rows[name][2:])
    assert not rows[GIVEN][:2].any()
    np.testing.assert_array_equal(rows[GIVEN][2:], rows[STATISTICS][2:])
    assert (rows[GIVEN][2:, 1] > 0).all()  # a deviation of 0 would be none given
