"""An evaluation as a visible line of stages: cases, pictures of each model, measures, report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.class_images import Painter
from mezzotint.trainer.evaluation.gallery import Encode, Gallery, cut_outs
from mezzotint.trainer.evaluation.measures import Cases, Found, Pictures, measure
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.evaluation.suite import SUITE, Group, Suite, Words, read_reference

BEFORE = "before"
"""The base model's name among those that are compared."""

Progress: TypeAlias = Callable[[str, int, int], None]
"""Hears which model has painted how many pictures of how many."""

Looks: TypeAlias = Callable[[Pixels, Sequence[str]], Found]
"""Further measures of pictures of the subject and their prompts."""

_CHUNK = 20  # pictures asked of a painter at a time
_KNOWN_SEED = 8_000_000  # of what a base without reference pictures is held to


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Pictures and measures by model: ``before``, then its fine-tune, then other engines of that."""

    pictures: Mapping[str, Pictures]
    found: Mapping[str, Found]


def evaluate(
    painters: Mapping[str, Painter],
    suite: Suite,
    words: Words,
    cases: Cases,
    subjects: Sequence[Image.Image],
    encode: Encode,
    looks: Sequence[Looks] = (),
    progress: Progress = lambda model, done, total: None,
) -> Evaluation:
    """Paint every case with every model, and measure.

    Args:
        painters: by model's name, ``BEFORE`` first, then the fine-tune.
        suite: the model's grounds and reference pictures.
        words: what the subject and its class are called.
        cases: what is asked.
        subjects: the subject's own pictures.
        encode: into latents of the base's VAE, which training leaves alone: one instrument for all models.
        looks: further measures of the subject's pictures.
        progress: hears of pictures.
    """
    pictures = {name: paint_cases(paint, cases, name, progress) for name, paint in painters.items()}
    gallery = make_gallery(suite, words, painters[BEFORE], subjects, encode)
    found = measure_all(pictures, cases, gallery, words)
    prompts = [case.prompt for case in cases[Group.SUBJECT]]
    for name, own in pictures.items():
        for look in looks:
            found[name] |= look(own[Group.SUBJECT], prompts)
    return Evaluation(pictures, found)


def measure_all(pictures: Mapping[str, Pictures], cases: Cases, gallery: Gallery, words: Words) -> dict[str, Found]:
    """Return the measures of each model's pictures; ``BEFORE`` is among them."""
    before = pictures[BEFORE]
    return {
        name: measure(own, cases, gallery, words, None if name == BEFORE else before) for name, own in pictures.items()
    }


def paint_cases(
    paint: Painter, cases: Cases, name: str, progress: Progress = lambda model, done, total: None
) -> dict[Group, Pixels]:
    """Return a model's pictures of each group, uint8 [N, H, W, 3]."""
    total, done = sum(map(len, cases.values())), 0
    pictures: dict[Group, Pixels] = {}
    for group, asked in cases.items():
        made: list[npt.NDArray[np.uint8]] = []
        for i in range(0, len(asked), _CHUNK):
            chunk = asked[i : i + _CHUNK]
            made += paint([case.prompt for case in chunk], [case.seed for case in chunk])
            done += len(chunk)
            progress(name, done, total)
        pictures[group] = np.stack(made)
    return pictures


def make_gallery(
    suite: Suite, words: Words, base: Painter | None, subjects: Sequence[Image.Image], encode: Encode
) -> Gallery:
    """Return what pictures are held to: the model's reference pictures or, without them, the base's own pictures.

    Raises:
        TrainConfigError: there is neither.
    """
    if suite.reference is not None:
        names, things = read_reference(suite.reference)
        return Gallery(names, things, cut_outs(subjects, cut=True), suite.grounds, encode)
    if base is None:
        raise TrainConfigError(f"{SUITE}: names no reference pictures; name some, or have the base painted too")
    names = tuple(dict.fromkeys((words.class_, *suite.others.things)))  # the class may be an everyday thing
    seeds = range(_KNOWN_SEED, _KNOWN_SEED + len(names))
    made: list[npt.NDArray[np.uint8]] = []
    for i in range(0, len(names), _CHUNK):
        made += base([f"a photo of a {name}" for name in names[i : i + _CHUNK]], seeds[i : i + _CHUNK])
    return Gallery(names, np.stack(made), cut_outs(subjects, cut=False), {}, encode)


def read_subjects(folder: Path) -> list[Image.Image]:
    """Return the subject's pictures, RGB, by name; those that training has read."""
    from mezzotint.trainer.pictures import find_pictures, read_picture

    return [read_picture(path) for path in find_pictures(folder)]
