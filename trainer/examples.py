"""Examples of a run by number: which pictures and captions, in which order, as the rows of a batch.

Number n is the n-th example that the whole run sees, on whichever process and in whatever way batches are cut, and
all that is drawn for it comes from (seed, n). So a resumed run, more processes and accumulation see the same data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image
from torch.utils.data import Dataset

from mezzotint.trainer.draws import generator
from mezzotint.trainer.framing import Framing
from mezzotint.trainer.grounds import Colour, cut_out, laid_on
from mezzotint.trainer.pictures import read_picture

CLASS_KEYS = 1 << 40
"""A class row's key is its example's number plus this, so that an instance row draws the same without class rows."""

Batch = dict[str, torch.Tensor]
Source = tuple[Path, Colour | None]


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture and what is said of it; ``ground`` is what its thing is laid on instead of its own plain one."""

    path: Path
    caption: str
    ground: Colour | None = None

    @property
    def source(self) -> Source:
        """What its pixels come from, whatever is said of them."""
        return self.path, self.ground

    def read(self) -> Image.Image:
        """Return the picture, RGB. Raises TrainError."""
        picture = read_picture(self.path)
        return picture if self.ground is None else laid_on(cut_out(picture), self.ground)


@dataclass(frozen=True, slots=True)
class Pair:
    """One example: an instance and, with prior preservation, a picture of its class."""

    instance: Shot
    prior: Shot | None


def pair_up(instances: Sequence[Shot], priors: Sequence[Shot], repeats: int) -> list[Pair]:
    """Return an epoch's examples of one concept: as many as the longer list has, the shorter one repeated.

    As in diffusers' train_dreambooth. ``priors`` is empty without prior preservation.
    """
    count = max(len(instances) * repeats, len(priors))
    return [Pair(instances[i % len(instances)], priors[i % len(priors)] if priors else None) for i in range(count)]


class Views(Protocol):
    """Where a picture's row of a batch comes from."""

    @property
    def name(self) -> str:
        """The row's name in a batch."""
        ...

    def row(self, shot: Shot, key: int) -> torch.Tensor:
        """Return the row of a picture for the key of an example."""
        ...


@dataclass(frozen=True, slots=True)
class Pixels:
    """Squares cut from the files each time: float32 [3, h, w] in −1…1."""

    framing: Framing
    seed: int
    name: str = "pixels"

    def row(self, shot: Shot, key: int) -> torch.Tensor:
        """Return the square of a picture."""
        return self.framing.square(shot.read(), self.seed, key)


@dataclass(frozen=True, slots=True)
class Moments:
    """The VAE's moments of fixed squares, made before: float32 [2·channels, h/factor, w/factor]."""

    framing: Framing
    seed: int
    cache: Mapping[Source, torch.Tensor]
    name: str = "moments"

    def row(self, shot: Shot, key: int) -> torch.Tensor:
        """Return the moments of a picture or of its mirror image."""
        return self.cache[shot.source][int(self.framing.flips(self.seed, key))]


@dataclass(frozen=True, slots=True)
class Texts:
    """Rows of captions: ``tokens``, int64 [tokens], or ``states``, float32 [tokens, width], by name."""

    name: str
    rows: Mapping[str, torch.Tensor]


class Examples(Dataset[Batch]):
    """Batches by the numbers of their examples.

    Args:
        pairs: an epoch's examples, in any order.
        views: pictures' rows.
        texts: captions' rows.
        seed: what the order of each epoch is drawn from.
        empty: the share of class rows whose caption is empty; ``texts`` has that one too then.
    """

    def __init__(self, pairs: Sequence[Pair], views: Views, texts: Texts, seed: int, empty: float = 0.0) -> None:
        self.pairs = pairs
        self._views = views
        self._texts = texts
        self._seed = seed
        self._empty = empty
        self._order = lru_cache(maxsize=2)(lambda epoch: _shuffled(len(pairs), seed, epoch))

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, numbers: Sequence[int]) -> Batch:
        """Return a batch: its instance rows in that order, then as many class rows where there are priors.

        It has ``pixels`` or ``moments``, ``tokens`` or ``states``, and ``keys``, int64 [rows], to draw from.
        """
        pairs = [self.pair(number) for number in numbers]
        own = [(pair.instance, number) for pair, number in zip(pairs, numbers, strict=True)]
        priors = [(pair.prior, number + CLASS_KEYS) for pair, number in zip(pairs, numbers, strict=True) if pair.prior]
        captions = [shot.caption for shot, _ in own] + [self._class_caption(shot, key) for shot, key in priors]
        return {
            self._views.name: torch.stack([self._views.row(shot, key) for shot, key in (*own, *priors)]),
            self._texts.name: torch.stack([self._texts.rows[caption] for caption in captions]),
            "keys": torch.tensor([key for _, key in (*own, *priors)]),
        }

    def pair(self, number: int) -> Pair:
        """Return the example of that number: every epoch has each of ``pairs`` once."""
        epoch, place = divmod(number, len(self.pairs))
        return self.pairs[self._order(epoch)[place]]

    def _class_caption(self, shot: Shot, key: int) -> str:
        """Return what is said of a class row's picture; of some nothing, so that guidance keeps its start."""
        if not self._empty:
            return shot.caption
        drawn = torch.rand((), generator=generator(self._seed, key, "caption"))
        return "" if drawn < self._empty else shot.caption


def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=generator(seed, epoch, "order")).tolist()
    return order
