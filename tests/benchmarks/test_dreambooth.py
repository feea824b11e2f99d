"""The DreamBooth benchmark's own arithmetic; what it measures by is tested with ``mezzotint evaluate``."""

import numpy as np

from benchmarks.dreambooth import from_seed_to_seed, shifted
from mezzotint.trainer.evaluation.suite import Case, Group


def test_other_seeds_are_other_pictures_of_the_same_prompts() -> None:
    cases = {Group.CLASS: [Case("a cat", 6_000_000, "cat", "white")]}
    (other,) = shifted(cases)[Group.CLASS]
    assert other.seed != 6_000_000
    assert (other.prompt, other.thing, other.ground) == ("a cat", "cat", "white")


def test_a_change_beyond_what_seeds_do_is_said() -> None:
    rng = np.random.default_rng(0)
    fp32, other = rng.normal(24, 1, 200), rng.normal(24, 1, 200)
    near, far = ({"PSNR": fp32 + change} for change in (-0.01, -1.0))
    inside = [from_seed_to_seed({"PSNR": fp32}, {"PSNR": other}, int8)[0] for int8 in (near, far)]
    assert [row["int8 changes no more"] for row in inside] == ["yes", "no"]


def test_measures_of_other_numbers_of_values_are_left_out() -> None:
    assert from_seed_to_seed({"a": np.zeros(3)}, {"a": np.zeros(2)}, {"a": np.zeros(3)}) == []
