"""What is asked of the emoji model, and what it should paint: a name, a ground, a seed, and the named picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mezzotint.trainer.evaluation.suite import Suite, read_reference

MODEL = Path(__file__).parents[2] / "models" / "emoji"
SIDE = 64  # pixels of a tile of reference.png, and of a picture
_SUITE = Suite.read(MODEL)
GROUNDS = _SUITE.grounds  # what it paints when no ground is named comes first
_FIRST_SEED = 1_000_000  # far from the seeds that calibration and tests use
_DRAW = 20_240_601

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Case:
    """One picture to paint: ``index`` is the name's line in names.txt and its tile in reference.png."""

    index: int
    name: str
    ground: str
    seed: int

    @property
    def prompt(self) -> str:
        """The words of the model's own README; the white ground is what comes without any."""
        article = "an" if self.name[0] in "aeiou" else "a"
        return f"{article} {self.name}" + ("" if self.ground == "white" else f" on a {self.ground} background")


@lru_cache(maxsize=1)
def names() -> tuple[str, ...]:
    """Return what the model can paint, in the order of its reference picture."""
    return tuple((MODEL / "names.txt").read_text(encoding="utf-8").split("\n")[:-1])


def draw_cases(count: int) -> list[Case]:
    """Return the first ``count`` cases of one fixed sequence, so that fewer are always a part of more.

    Every run of as many cases as there are names holds each name once; grounds are drawn evenly.
    """
    rng = np.random.default_rng(_DRAW)
    cases: list[Case] = []
    while len(cases) < count:
        order = rng.permutation(len(names()))
        grounds = rng.integers(len(GROUNDS), size=len(order))
        cases += [
            Case(index=int(i), name=names()[i], ground=list(GROUNDS)[g], seed=_FIRST_SEED + len(cases) + k)
            for k, (i, g) in enumerate(zip(order, grounds, strict=True))
        ]
    return cases[:count]


def named_pictures(ground: str) -> Pixels:
    """Return all named pictures on one ground, uint8 [names, 64, 64, 3]."""
    tiles = _tiles()
    alpha = tiles[..., 3:] / 255
    composed: Pixels = (tiles[..., :3] * alpha + np.array(GROUNDS[ground]) * (1 - alpha)).round().astype(np.uint8)
    return composed


def targets(cases: Sequence[Case]) -> Pixels:
    """Return what each case should look like, uint8 [N, 64, 64, 3]."""
    by_ground = {ground: named_pictures(ground) for ground in {case.ground for case in cases}}
    return np.stack([by_ground[case.ground][case.index] for case in cases])


@lru_cache(maxsize=1)
def _tiles() -> Pixels:
    """Return reference.png cut up, uint8 [names, 64, 64, 4]."""
    assert _SUITE.reference is not None
    return read_reference(_SUITE.reference)[1]
