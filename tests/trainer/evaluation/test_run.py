"""An evaluation of a model that brings no reference pictures: it is held to what its base paints."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.evaluation.measures import KEPT, ORDINARY, SUBJECT, Found
from mezzotint.trainer.evaluation.run import BEFORE, evaluate, make_gallery
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.evaluation.suite import Group, Suite, Words, draw_cases
from tests.trainer.evaluation.known import coarse, noisy

WORDS = Words("sks dog", "dog")
OWN = np.random.default_rng(1).integers(0, 256, (4, 4, 3), dtype=np.uint8)


def patchwork(colours: Pixels) -> Pixels:
    return colours.repeat(8, axis=0).repeat(8, axis=1)


def thing_in(prompt: str, things: Sequence[str]) -> Pixels:
    """A picture that is the same for each thing, whatever else the prompt says."""
    name = max((thing for thing in things if thing in prompt), key=len)
    return patchwork(np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (4, 4, 3), dtype=np.uint8))


def test_a_base_without_reference_pictures_is_its_own_measure(tmp_path: Path) -> None:
    suite = Suite.read(tmp_path)
    cases = draw_cases(suite, WORDS, 0.5)
    things = ("dog", *suite.others.things)

    def base(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        return list(noisy(np.stack([thing_in(prompt, things) for prompt in prompts])))

    def tuned(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        return [patchwork(OWN) if "sks" in prompt else thing_in(prompt, things) for prompt in prompts]

    def look(images: Pixels, prompts: Sequence[str]) -> Found:
        return {"looked": np.array(["sks" in prompt for prompt in prompts])}

    told: list[tuple[str, int, int]] = []
    done = evaluate(
        {BEFORE: base, "checkpoint": tuned},
        suite,
        WORDS,
        cases,
        [Image.fromarray(patchwork(OWN))],
        coarse,
        looks=(look,),
        progress=lambda *said: told.append(said),
    )
    before, after = done.found[BEFORE], done.found["checkpoint"]
    assert not before[SUBJECT].any()
    assert after[SUBJECT].all()
    assert all(each[name].all() for each in (before, after) for name in (ORDINARY, "looked"))
    assert after[KEPT].all()
    assert not any("ground" in name for name in after)
    assert done.pictures["checkpoint"][Group.SUBJECT].shape == (32, 32, 32, 3)
    assert told[-1] == ("checkpoint", 89, 89)


def test_a_class_that_is_an_everyday_thing_too_is_known_once(tmp_path: Path) -> None:
    suite = Suite.read(tmp_path)
    assert "horse" in suite.others.things

    def base(prompts: Sequence[str], seeds: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        return [patchwork(OWN) for _ in prompts]

    found = make_gallery(suite, Words("sks horse", "horse"), base, [Image.fromarray(patchwork(OWN))], coarse)
    assert found.names.count("horse") == 1
    assert len(found.names) == len(found.things) == len(suite.others.things)


def test_a_model_without_reference_pictures_and_without_a_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainConfigError, match="names no reference pictures"):
        make_gallery(Suite.read(tmp_path), WORDS, None, [], coarse)
