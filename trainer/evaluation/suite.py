"""What is asked of a fine-tune: its subject in many words and on many grounds, its class, and other things it knew.

A model that knows what it should paint has ``evaluation.yaml`` in its folder: its grounds, and a sheet of reference
pictures with their names. Other models are asked for everyday things, and held to what their base paints.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
import yaml
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.grounds import Colour

SUITE = "evaluation.yaml"
"""The name of a model's own suite in its folder."""

_EVERYDAY = Path(__file__).with_name("everyday.yaml")
_FIRST_SEEDS = {"subject": 5_000_000, "class": 6_000_000, "others": 7_000_000}  # far from class pictures' and others'


class Group(StrEnum):
    """The three things that are asked for."""

    SUBJECT = "subject"
    CLASS = "class"
    OTHERS = "others"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(_Strict):
    """Pictures of what the model knows: RGBA tiles in rows, and their names, one a line."""

    sheet: Path
    names: Path
    side: PositiveInt


class Asked(_Strict):
    """One group's prompts: each context on each ground, ``count`` in all, each with a seed of its own."""

    contexts: tuple[str, ...] = Field(min_length=1)
    grounds: tuple[str, ...] = Field(("",), min_length=1)
    things: tuple[str, ...] = ()
    count: PositiveInt


class Suite(_Strict):
    """What a model is asked.

    Attributes:
        grounds: colours by name; the first is painted where none is named.
        on_ground: how a ground is asked for; it is put behind the prompt.
    """

    grounds: dict[str, Colour] = Field(default_factory=dict)
    on_ground: str = " on a {} background"
    reference: Reference | None = None
    subject: Asked
    class_: Asked = Field(alias="class")
    others: Asked

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return a model's own suite, or the one for models without; what it names is all there.

        Raises:
            TrainConfigError: it cannot be read, or asks for a ground or a thing that has no colour or picture.
        """
        own = folder / SUITE
        file = own if own.is_file() else _EVERYDAY
        try:
            suite = cls.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
            raise TrainConfigError(f"{file}: is no suite ({' '.join(str(error).split())}); mend it") from None
        unknown = {g for a in (suite.subject, suite.class_, suite.others) for g in a.grounds} - {*suite.grounds, ""}
        if unknown:
            raise TrainConfigError(f"{file}: ground {min(unknown)!r} has no colour; give it one under `grounds`")
        if not suite.others.things:
            raise TrainConfigError(f"{file}: others has no things; name some under `things`")
        if suite.reference is None:
            return suite
        sheet, names = (folder / path for path in (suite.reference.sheet, suite.reference.names))
        reference = Reference(sheet=sheet, names=names, side=suite.reference.side)
        known, _ = read_reference(reference)
        if lacking := [thing for thing in suite.others.things if thing not in known]:
            raise TrainConfigError(f"{file}: others has {lacking[0]!r}, which is not in {names}; name what is there")
        return suite.model_copy(update={"reference": reference})


@dataclass(frozen=True, slots=True)
class Case:
    """One picture to paint: ``thing`` is what it should show, ``ground`` is "" where the model has none."""

    prompt: str
    seed: int
    thing: str
    ground: str


@dataclass(frozen=True, slots=True)
class Words:
    """What the subject and its class are called, such as ``sks cat`` and ``cat``."""

    subject: str
    class_: str

    @classmethod
    def of(cls, instance_prompt: str, identifier: str) -> Self:
        """Return them from ``a photo of a sks cat`` and ``sks``: from the identifier on, and what is behind it.

        Raises:
            TrainConfigError: the identifier is not in the prompt.
        """
        _, found, behind = f" {instance_prompt} ".partition(f" {identifier} ")
        if not identifier or not found:
            raise TrainConfigError(
                f"identifier={identifier!r}: is not in the instance prompt {instance_prompt!r}; say it with "
                "`--identifier`, and what follows is the class"
            )
        return cls(f"{identifier} {behind.strip()}".strip(), behind.strip() or "thing")


def draw_cases(suite: Suite, words: Words, share: float = 1.0) -> dict[Group, list[Case]]:
    """Return what is asked of each group; ``share`` of each count, evenly over contexts and grounds."""
    things = {
        Group.SUBJECT: (suite.subject, [words.subject]),
        Group.CLASS: (suite.class_, [words.class_]),
        Group.OTHERS: (suite.others, list(suite.others.things)),
    }
    return {group: _cases(suite, group, asked, names, share) for group, (asked, names) in things.items()}


def _cases(suite: Suite, group: Group, asked: Asked, things: Sequence[str], share: float) -> list[Case]:
    ways = [(context, ground) for context in asked.contexts for ground in asked.grounds]
    default = next(iter(suite.grounds), "")
    cases = []
    for i in range(max(1, round(asked.count * share))):
        thing = things[i % len(things)]
        context, ground = ways[i % len(ways)]
        where = "" if ground in ("", default) else suite.on_ground.format(ground)
        prompt = _with_article(context.format(thing)) + where
        cases.append(Case(prompt, _FIRST_SEEDS[group] + i, thing, ground or default))
    return cases


def _with_article(prompt: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", prompt)


def read_reference(reference: Reference) -> tuple[tuple[str, ...], Pixels]:
    """Return the names and pictures of a model's own sheet, uint8 [names, side, side, 4]. Raises TrainConfigError."""
    try:
        names = tuple(name.strip() for name in reference.names.read_text(encoding="utf-8").strip().splitlines())
        sheet = np.array(Image.open(reference.sheet).convert("RGBA"))
    except (OSError, UnicodeDecodeError) as error:
        raise TrainConfigError(f"{reference.sheet}: the reference cannot be read ({error}); check {SUITE}") from None
    pictures = tiles(sheet, reference.side)
    if not names or len(pictures) < len(names):
        raise TrainConfigError(
            f"{reference.sheet}: has {len(pictures)} pictures of {reference.side}x{reference.side} pixels for "
            f"{len(names)} names in {reference.names}, expected one of each; mend the two, or `side` in {SUITE}"
        )
    return names, pictures[: len(names)]


def tiles(sheet: Pixels, side: int) -> Pixels:
    """Return a sheet cut into squares, row by row, uint8 [N, side, side, channels]; parts of one are left out."""
    rows, columns, channels = sheet.shape[0] // side, sheet.shape[1] // side, sheet.shape[2]
    whole = sheet[: rows * side, : columns * side].reshape(rows, side, columns, side, channels)
    return whole.transpose(0, 2, 1, 3, 4).reshape(rows * columns, side, side, channels)
