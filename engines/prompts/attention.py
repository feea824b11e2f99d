r"""How much each word of a prompt counts: A1111's ``(word)``, ``(word:1.3)``, ``[word]``; BREAK between chunks. Pure.

Brackets nest, ``\(``, ``\)``, ``\[``, ``\]`` and ``\\`` are themselves, and a bracket that is not closed counts to the
end, as in A1111's ``parse_prompt_attention``. There a BREAK inside of brackets becomes a word; here it is one too.
"""

import re
from dataclasses import dataclass

from mezzotint.engines.errors import InvalidRequest

MAX_DEPTH = 64
"""The most brackets that may be open at a time."""
MAX_WEIGHT = 100.0

_STRONGER, _WEAKER = 1.1, 1 / 1.1
_PIECE = re.compile(
    r"""
    (?P<escaped>\\[()\[\]\\]?)
    | :\s*(?P<weight>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*\)
    | [()\[\]:]
    | [^\\()\[\]:]+
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")
_LANGUAGE = re.compile(r"(?=[()\[\]\\])|(?<=\bBREA)(?=K\b)|(?<=\bAN)(?=D\b)")


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one weight; 1 is as it stands."""

    text: str
    weight: float = 1.0


@dataclass(slots=True)
class _Piece:
    text: str | None  # None is a BREAK
    weight: float = 1.0


def parse_attention(text: str) -> tuple[tuple[Span, ...], ...]:
    """Return the sections of a text, which BREAK parts, each as its spans; neighbours of one weight are one span.

    Raises:
        InvalidRequest: brackets are nested deeper than ``MAX_DEPTH``, or a weight is beyond ``MAX_WEIGHT``.
    """
    pieces = _weighted(text)
    sections: list[list[Span]] = [[]]
    for piece in pieces:
        if piece.text is None:
            sections.append([])
            continue
        if not abs(piece.weight) <= MAX_WEIGHT:
            raise InvalidRequest(
                f"the weight {piece.weight:g} of {piece.text[:40]!r} must be between -{MAX_WEIGHT:g} and "
                f"{MAX_WEIGHT:g}; 0.5 to 1.5 is usual"
            )
        section = sections[-1]
        if section and section[-1].weight == piece.weight:
            section[-1] = Span(section[-1].text + piece.text, piece.weight)
        elif piece.text:
            section.append(Span(piece.text, piece.weight))
    return tuple(map(tuple, sections))


def literal(text: str) -> str:
    """Return the prompt that shows a text as it stands, with nothing of the language in it."""
    return _LANGUAGE.sub(r"\\", text)


def _weighted(text: str) -> list[_Piece]:
    pieces: list[_Piece] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # how many pieces there were

    def multiply(first: int, factor: float) -> None:
        for piece in pieces[first:]:
            piece.weight *= factor

    for found in _PIECE.finditer(text):
        piece, weight = found[0], found["weight"]
        if found["escaped"]:
            pieces.append(_Piece(piece[1:]))
        elif piece in opened:
            opened[piece].append(len(pieces))
            if len(opened["("]) + len(opened["["]) > MAX_DEPTH:
                raise InvalidRequest(f"brackets are nested more than {MAX_DEPTH} deep; give the weight as a number")
        elif opened["("] and (weight or piece == ")"):
            multiply(opened["("].pop(), float(weight) if weight else _STRONGER)
        elif opened["["] and piece == "]":
            multiply(opened["["].pop(), _WEAKER)
        else:
            first, *others = _BREAK.split(piece)
            for other in others:
                pieces += [_Piece(first.rstrip()), _Piece(None)]
                first = other.lstrip()
            pieces.append(_Piece(first))
    for bracket, factor in (("(", _STRONGER), ("[", _WEAKER)):
        for first in opened[bracket]:
            multiply(first, factor)
    return pieces
