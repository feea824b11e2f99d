"""What is measured of a model's pictures, one value a case, so that two models' differences are taken in pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from mezzotint.trainer.evaluation.gallery import COLOURS, LATENTS, PIXELS, Gallery
from mezzotint.trainer.evaluation.pictures import grounds_of
from mezzotint.trainer.evaluation.statistics import Bools, Floats, Pixels, psnr_db
from mezzotint.trainer.evaluation.suite import Case, Group, Words

Pictures = Mapping[Group, Pixels]
Cases = Mapping[Group, Sequence[Case]]
Found = dict[str, npt.NDArray[Any]]
"""Values by what they say: bool [N] for shares, float64 [N] for means."""

SUBJECT = "is the subject: colours, pixels and latents"
ORDINARY = "class: an ordinary one"
KEPT = "others: top-1 as before"
CLIP_I, CLIP_T, DINO = "subject: CLIP-I", "subject: CLIP-T", "subject: DINO"
COSINES = (CLIP_I, CLIP_T, DINO)
"""Measures of −1…1, which further looks give (``vision.py``)."""


def measure(pictures: Pictures, cases: Cases, gallery: Gallery, words: Words, before: Pictures | None = None) -> Found:
    """Return all measures of a model's pictures; ``before`` are the base model's own, where these are not they."""
    found = _subject(pictures[Group.SUBJECT], cases[Group.SUBJECT], gallery)
    found |= _class(pictures[Group.CLASS], cases[Group.CLASS], gallery, words)
    found |= _others(pictures[Group.OTHERS], cases[Group.OTHERS], gallery)
    if before is not None:
        asked = cases[Group.OTHERS]
        now, then = (_top(each[Group.OTHERS], asked, gallery) for each in (pictures, before))
        found[KEPT] = now == then
        for group in (Group.CLASS, Group.OTHERS):
            found[f"{group}: PSNR to the base's own picture, dB"] = psnr_db(before[group], pictures[group])
    return found


def _subject(images: Pixels, cases: Sequence[Case], gallery: Gallery) -> Found:
    votes = {instrument: _are_subject(images, cases, gallery, instrument) for instrument in (COLOURS, PIXELS, LATENTS)}
    found: Found = {SUBJECT: np.logical_and.reduce(list(votes.values()))}
    found |= {f"is the subject: {instrument}": hits for instrument, hits in votes.items()}
    return found | _ground(Group.SUBJECT, images, cases, gallery) | _diversity(Group.SUBJECT, images, cases)


def _class(images: Pixels, cases: Sequence[Case], gallery: Gallery, words: Words) -> Found:
    """An ordinary one is, in latents, nearest to a thing of that name, and no instrument takes it for the subject."""
    of_class = [i for i, name in enumerate(gallery.names) if words.class_ in name.split() or name == words.class_]
    taken = [_are_subject(images, cases, gallery, instrument) for instrument in (COLOURS, PIXELS, LATENTS)]
    ordinary = np.isin(_top(images, cases, gallery), of_class) & ~np.logical_or.reduce(taken)
    found: Found = {ORDINARY: ordinary}
    return found | _ground(Group.CLASS, images, cases, gallery) | _diversity(Group.CLASS, images, cases)


def _others(images: Pixels, cases: Sequence[Case], gallery: Gallery) -> Found:
    asked = np.array([gallery.number(case.thing) for case in cases])
    found: Found = {"others: top-1 is what was named": _top(images, cases, gallery) == asked}
    if gallery.grounds:
        named = np.stack([gallery.on(case.ground)[i] for case, i in zip(cases, asked, strict=True)])
        found["others: PSNR to the named picture, dB"] = psnr_db(named, images)
    return found | _ground(Group.OTHERS, images, cases, gallery)


def _top(images: Pixels, cases: Sequence[Case], gallery: Gallery) -> npt.NDArray[np.int64]:
    return gallery.nearest(images, [case.ground for case in cases], LATENTS)


def _are_subject(images: Pixels, cases: Sequence[Case], gallery: Gallery, instrument: str) -> Bools:
    hits: Bools = gallery.nearest(images, [case.ground for case in cases], instrument) >= len(gallery.names)
    return hits


def _ground(group: Group, images: Pixels, cases: Sequence[Case], gallery: Gallery) -> Found:
    if not gallery.grounds:
        return {}
    names = list(gallery.grounds)
    got = grounds_of(images, list(gallery.grounds.values()))
    return {f"{group}: ground as asked": got == np.array([names.index(case.ground) for case in cases])}


def _diversity(group: Group, images: Pixels, cases: Sequence[Case]) -> Found:
    """How far two pictures of one prompt are apart: the root of their mean squared difference, in levels of 255."""
    last: dict[str, int] = {}
    apart: list[float] = []
    for i, case in enumerate(cases):
        if case.prompt in last:
            difference = images[i].astype(np.float64) - images[last[case.prompt]]
            apart.append(float(np.sqrt(np.square(difference).mean())))
        last[case.prompt] = i
    values: Floats = np.array(apart)
    return {f"{group}: difference of two pictures of one prompt, levels": values} if apart else {}
