"""Where engines are not to be had, torch paints the same pictures."""

from pathlib import Path

import numpy as np

from mezzotint.cli.painter import EnginePainter
from mezzotint.trainer.base import Base
from mezzotint.trainer.torch_painter import torch_painter


def test_torch_and_the_engines_paint_the_same_class_pictures(base: Base, emoji_bundle: Path) -> None:
    prompts, seeds = ["a photo of a cat"] * 3, [0, 1, 2]
    with EnginePainter(lambda: emoji_bundle, steps=4, guidance=4.0) as paint:
        compiled = paint(prompts, seeds)
    painted = torch_painter(base, steps=4, guidance=4.0)(prompts, seeds)
    for one, other in zip(compiled, painted, strict=True):
        assert one.shape == other.shape == (64, 64, 3)
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2
