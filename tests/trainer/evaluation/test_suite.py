"""What a fine-tune is asked: evenly, with seeds of its own, and refused where a suite's file is wrong."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from mezzotint.engines.errors import TrainConfigError
from mezzotint.trainer.evaluation.suite import SUITE, Group, Reference, Suite, Words, draw_cases, read_reference
from tests.conftest import EMOJI

WORDS = Words("sks cat", "cat")


def test_the_subject_is_asked_for_400_times_evenly_over_contexts_and_grounds() -> None:
    cases = draw_cases(Suite.read(EMOJI), WORDS)[Group.SUBJECT]
    counted = Counter(case.prompt for case in cases)
    assert len(cases) == 400
    assert set(counted.values()) == {20}
    assert Counter(case.ground for case in cases) == dict.fromkeys(["red", "yellow", "green", "blue", "black"], 80)
    assert all("sks cat on a " in case.prompt for case in cases)


def test_no_two_pictures_have_one_seed() -> None:
    seeds = [case.seed for cases in draw_cases(Suite.read(EMOJI), WORDS).values() for case in cases]
    assert len(set(seeds)) == len(seeds)


def test_fifty_other_things_are_asked_for_once_each_and_none_is_of_the_class() -> None:
    cases = draw_cases(Suite.read(EMOJI), WORDS)[Group.OTHERS]
    names = (EMOJI / "names.txt").read_text(encoding="utf-8").splitlines()
    assert len({case.thing for case in cases}) == len(cases) == 50
    assert {case.thing for case in cases} <= set(names)
    assert not any("cat" in case.thing.split() for case in cases)


def test_the_ground_that_is_painted_anyway_is_not_asked_for() -> None:
    prompts = {case.prompt for case in draw_cases(Suite.read(EMOJI), WORDS)[Group.CLASS] if case.ground == "white"}
    assert prompts == {"a cat", "a photo of a cat", "an emoji of a cat", "cat"}


def test_articles_are_right() -> None:
    prompts = [case.prompt for case in draw_cases(Suite.read(EMOJI), WORDS)[Group.OTHERS]]
    assert all((" ".join(prompt.split()[:1]) == "an") == (prompt.split()[1][0] in "aeiou") for prompt in prompts)


def test_less_is_the_beginning_of_more() -> None:
    suite = Suite.read(EMOJI)
    few, all_cases = draw_cases(suite, WORDS, 0.1), draw_cases(suite, WORDS)
    assert {group: len(cases) for group, cases in few.items()} == {"subject": 40, "class": 12, "others": 5}
    assert all(all_cases[group][: len(cases)] == cases for group, cases in few.items())


def test_a_model_without_a_suite_is_asked_for_everyday_things(tmp_path: Path) -> None:
    cases = draw_cases(Suite.read(tmp_path), Words("sks dog", "dog"))
    assert cases[Group.SUBJECT][0].prompt == "a photo of a sks dog in the jungle"
    assert len(cases[Group.OTHERS]) == 50
    assert all(case.ground == "" for case in cases[Group.SUBJECT])


def test_the_subjects_words_begin_at_its_identifier() -> None:
    assert Words.of("a photo of a sks cat", "sks") == WORDS
    assert Words.of("a photo of a sks", "sks") == Words("sks", "thing")
    with pytest.raises(TrainConfigError, match="identifier='zwx': is not in the instance prompt"):
        Words.of("a photo of a sks cat", "zwx")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("grounds: [red, yellow", "grounds: [mauve, yellow", "ground 'mauve' has no colour"),
        ("count: 400", "count: many", "is no suite"),
        ("subject:", "subjects:", "is no suite"),
        ("subject:", "]", "is no suite"),
        ('contexts: ["a {}", "an emoji', 'contexts: [] # ["a {}", "an emoji', "is no suite"),
        ("    - beer mug", "    - beer jug", "others has 'beer jug', which is not in .*; name what is there"),
        ("names.txt", "name.txt", "the reference cannot be read"),
        ("side: 64", "side: 640", "for .* names in .*, expected one of each"),
    ],
)
def test_a_suite_that_is_wrong_is_refused_in_a_sentence(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (EMOJI / SUITE).read_text(encoding="utf-8")
    assert old in text
    (tmp_path / SUITE).write_text(text.replace(old, new, 1), encoding="utf-8")
    for name in ("names.txt", "reference.png"):
        shutil.copy(EMOJI / name, tmp_path)
    with pytest.raises(TrainConfigError, match=message):
        Suite.read(tmp_path)


def test_others_without_things_are_refused(tmp_path: Path) -> None:
    asked = 'contexts: ["a {}"], count: 2'
    (tmp_path / SUITE).write_text(f"subject: {{{asked}}}\nclass: {{{asked}}}\nothers: {{{asked}}}\n", encoding="utf-8")
    with pytest.raises(TrainConfigError, match="others has no things; name some"):
        Suite.read(tmp_path)


def reference(folder: Path, names: bytes, size: tuple[int, int]) -> Reference:
    (folder / "names.txt").write_bytes(names)
    Image.new("RGBA", size, "red").save(folder / "sheet.png")
    return Reference(sheet=folder / "sheet.png", names=folder / "names.txt", side=8)


@pytest.mark.parametrize("names", [b"cat\ndog\nold owl\n", b"cat\ndog\nold owl", b"cat\r\ndog\r\nold owl\r\n\r\n"])
def test_names_end_with_a_line_or_without_one(tmp_path: Path, names: bytes) -> None:
    found, pictures = read_reference(reference(tmp_path, names, (20, 16)))
    assert found == ("cat", "dog", "old owl")
    assert pictures.shape == (3, 8, 8, 4)


@pytest.mark.parametrize(("names", "size"), [(b"cat\ndog\nowl\n", (16, 8)), (b"cat\n", (4, 4)), (b"\n", (8, 8))])
def test_more_names_than_pictures_are_refused(tmp_path: Path, names: bytes, size: tuple[int, int]) -> None:
    with pytest.raises(TrainConfigError, match=r"has \d pictures of 8x8 pixels for \d names .* expected one of each"):
        read_reference(reference(tmp_path, names, size))
