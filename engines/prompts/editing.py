"""Prompts that change with the steps: A1111's ``[from:to:when]``, ``[to:when]``, ``[from::when]`` and ``[a|b|c]``.

Pure. Brackets nest; round ones, and square ones that change nothing, stay in the text, since they are attention's
(``attention.py``). A bracket without its partner is text. Time grows with the prompt's length, whatever is in it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from mezzotint.engines.errors import InvalidRequest

MAX_CHANGES = 64
"""The most brackets of one prompt that change with the steps."""

_PIECE = re.compile(r"\\.|[\[\]():|]|[^\\\[\]():|]+|\\", re.DOTALL)
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*")
_PARTNER = {")": "(", "]": "["}


@dataclass(frozen=True, slots=True)
class _Switch:
    """``before`` in the first ``when`` steps, ``after`` in the others."""

    before: "_Text"
    after: "_Text"
    when: int

    def at(self, step: int) -> "_Text":
        return self.before if step < self.when else self.after


@dataclass(frozen=True, slots=True)
class _Cycle:
    """One option after the other, a step each."""

    options: "tuple[_Text, ...]"

    def at(self, step: int) -> "_Text":
        return self.options[step % len(self.options)]


_Text: TypeAlias = list[str | _Switch | _Cycle]


@dataclass(slots=True)
class _Open:
    """A bracket that waits for its partner, or the prompt itself: what lies between ``marks``, each ``:`` or ``|``."""

    bracket: str
    parts: list[_Text] = field(default_factory=lambda: [[]])
    marks: str = ""

    def add(self, pieces: Sequence[str | _Switch | _Cycle]) -> None:
        """Append to the last part; text beside text is one piece."""
        part = self.parts[-1]
        for piece in pieces:
            if part and isinstance(piece, str) and isinstance(part[-1], str):
                part[-1] += piece
            else:
                part.append(piece)

    def mark(self, mark: str) -> None:
        """Begin the next part."""
        self.marks += mark
        self.parts.append([])

    def as_text(self) -> _Text:
        """Return it as it was written, its own bracket first."""
        (written,) = self.between("")
        return [self.bracket, *written] if self.bracket else written

    def between(self, mark: str) -> list[_Text]:
        """Return what lies between marks of one kind, with the others as text."""
        found = _Open("")
        for before, part in zip(("", *self.marks), self.parts, strict=True):
            if before == mark != "":
                found.mark(mark)
            elif before:
                found.add([before])
            found.add(part)
        return found.parts


def texts_by_step(prompt: str, num_steps: int) -> tuple[str, ...]:
    """Return the text that each of a picture's steps sees, as A1111's ``get_learned_conditioning_prompt_schedules``.

    ``when`` is a step, or with a decimal point a share of the steps, rounded down; ``[a:b:5]`` shows a in five steps
    and b from the sixth on.

    Raises:
        InvalidRequest: more than ``MAX_CHANGES`` brackets change with the steps.
    """
    if "[" not in prompt:
        return (prompt,) * num_steps
    parser = _Parser(num_steps)
    text = parser.parse(prompt)
    if not parser.num_changes:
        return (prompt,) * num_steps
    return tuple(_at(text, step) for step in range(num_steps))


class _Parser:
    """One prompt on its way; ``num_changes`` counts the brackets that change with the steps."""

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self.num_changes = 0

    def parse(self, prompt: str) -> _Text:
        opened = [_Open("")]
        for piece in _PIECE.findall(prompt):
            match piece:
                case "(" | "[":
                    opened.append(_Open(piece))
                case ":" | "|":
                    opened[-1].mark(piece)
                case ")" | "]" if opened[-1].bracket == _PARTNER[piece]:
                    closed = opened.pop()
                    opened[-1].add(self._closed(closed, piece))
                case ")" | "]":
                    _give_up(opened)  # what holds a bracket without a partner is no pair either
                    opened[-1].add([piece])
                case _:
                    opened[-1].add([piece])
        _give_up(opened)
        return opened[0].as_text()

    def _closed(self, bracket: _Open, end: str) -> _Text:
        """Return what a pair of brackets is: one that changes, or text."""
        change = self._change(bracket) if end == "]" else None
        if change is None:
            return [*bracket.as_text(), end]
        self.num_changes += 1
        if self.num_changes > MAX_CHANGES:
            raise InvalidRequest(f"more than {MAX_CHANGES} of its brackets change with the steps; use fewer")
        return [change]

    def _change(self, bracket: _Open) -> _Switch | _Cycle | None:
        if bracket.marks and set(bracket.marks) == {"|"}:
            return _Cycle(tuple(bracket.parts))
        match bracket.between(":"):
            case [after, last] if (when := self._when(last)) is not None:
                return _Switch([], after, when)
            case [before, after, last] if (when := self._when(last)) is not None:
                return _Switch(before, after, when)
            case _:
                return None

    def _when(self, part: _Text) -> int | None:
        """Return the steps that a number stands for; None of what is no number."""
        found = _NUMBER.fullmatch(part[0]) if len(part) == 1 and isinstance(part[0], str) else None
        if found is None:
            return None
        number = Decimal(found[1])
        steps = number * self._num_steps if "." in found[1] else number
        return int(min(max(steps, Decimal(0)), Decimal(self._num_steps)))


def _give_up(opened: list[_Open]) -> None:
    """Take all brackets that are open as text."""
    while len(opened) > 1:
        last = opened.pop()
        opened[-1].add(last.as_text())


def _at(text: _Text, step: int) -> str:
    return "".join(piece if isinstance(piece, str) else _at(piece.at(step), step) for piece in text)
