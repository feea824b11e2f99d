"""Composed prompts, ``a cat AND a hat :1.2``: one text and one weight for each part. Pure; imports errors alone.

Compositional generation with diffusion models, Liu et al. 2022 (arXiv 2206.01714, equation 11), in the words of A1111's
web UI (``modules/prompt_parser.py``). What the weights do is ``guidance.py``'s.
"""

import re
from typing import NamedTuple

from mezzotint.engines.errors import InvalidRequest

MAX_WEIGHT = 100.0

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?|[0-9]*\.[0-9]+)")


class Part(NamedTuple):
    """One of the texts that a prompt is composed of, and how much of it: 1 is usual, less than 0 is away from it."""

    text: str
    weight: float = 1.0


def split_and(prompt: str) -> tuple[Part, ...]:
    """Split a prompt at the word AND in capitals, each part with the number behind its last colon as its weight.

    A prompt without the word is one part of weight 1, whatever it ends in: there A1111 reads a weight too, and takes
    ``in 16:9`` for one of 9.

    Raises:
        InvalidRequest: a weight is further from 0 than ``MAX_WEIGHT``.
    """
    pieces = _AND.split(prompt)
    return (Part(prompt),) if len(pieces) == 1 else tuple(map(_part, pieces))


def _part(piece: str) -> Part:
    text, colon, end = piece.rpartition(":")
    number = end.strip()
    if not colon or not _NUMBER.fullmatch(number):
        return Part(piece.strip())
    weight = float(number)
    if not abs(weight) <= MAX_WEIGHT:
        raise InvalidRequest(
            f"prompt: a part between ANDs has the weight {number[:20]}; must be between -{MAX_WEIGHT:g} and "
            f"{MAX_WEIGHT:g}, 1 is usual"
        )
    return Part(text.strip(), weight)
