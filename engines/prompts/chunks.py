"""A prompt's tokens as rows of the text encoder, which takes 75 of them between its two special ones.

A longer prompt fills several *chunks*, as in A1111's ``PromptChunk``: each is encoded alone, and the UNet sees them one
after the other. Pure; imports numpy alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Word: TypeAlias = tuple[int, ...]
"""Token ids that stay in one chunk: a token, or the vectors of an embedding."""
Weighted: TypeAlias = tuple[Word, float]

COMMA_BACKTRACK = 20
"""How many tokens after a comma go along to the next chunk where they would be parted; A1111's default."""


@dataclass(frozen=True, slots=True)
class Special:
    """What a row of the text encoder is made of beside the prompt's tokens; ``comma`` is None where it has no token."""

    length: int
    bos: int
    eos: int
    pad: int
    comma: int | None = None

    @property
    def room(self) -> int:
        """The tokens of a prompt that a chunk holds."""
        return self.length - 2


@dataclass(frozen=True, slots=True, eq=False)
class Chunks:
    """A text: ``ids`` int64 [chunks, tokens], and how much each counts, ``weights`` float32 [chunks, tokens]."""

    ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)


def chunked(sections: Iterable[Iterable[Weighted]], special: Special) -> Chunks:
    """Lay the words of a text into chunks; each section begins with a new one, and an empty text has one.

    A chunk ends after its last comma where that is at most ``COMMA_BACKTRACK`` tokens back, as in A1111.
    """
    filled: list[list[tuple[int, float]]] = []
    for section in sections:
        filled += _filled(section, special)
    if len(filled) > 1 and not filled[-1]:
        filled.pop()  # nothing follows the last BREAK
    return _rows(filled or [[]], special)


def padded(chunks: Chunks, count: int, special: Special) -> Chunks:
    """Return a text with empty chunks behind it, so that it has ``count``."""
    if count == len(chunks):
        return chunks
    empty = _rows([[]] * (count - len(chunks)), special)
    return Chunks(np.concatenate([chunks.ids, empty.ids]), np.concatenate([chunks.weights, empty.weights]))


def _filled(section: Iterable[Weighted], special: Special) -> list[list[tuple[int, float]]]:
    done: list[list[tuple[int, float]]] = []
    chunk: list[tuple[int, float]] = []
    comma: int | None = None  # where the chunk's last one is
    for word, weight in section:
        if word == (special.comma,):
            comma = len(chunk)
        elif comma is not None and len(chunk) == special.room and len(chunk) - comma <= COMMA_BACKTRACK:
            done.append(chunk[: comma + 1])
            chunk, comma = chunk[comma + 1 :], None
        if len(chunk) + len(word) > special.room:
            done.append(chunk)
            chunk, comma = [], None
        chunk += [(token, weight) for token in word]
    return [*done, chunk]


def _rows(filled: Sequence[Sequence[tuple[int, float]]], special: Special) -> Chunks:
    ids = np.full((len(filled), special.length), special.pad, dtype=np.int64)
    weights = np.ones(ids.shape, dtype=np.float32)
    for i, chunk in enumerate(filled):
        ids[i, 0] = special.bos
        ids[i, 1 : 1 + len(chunk)] = [token for token, _ in chunk]
        ids[i, 1 + len(chunk)] = special.eos
        weights[i, 1 : 1 + len(chunk)] = [weight for _, weight in chunk]
    return Chunks(ids, weights)
