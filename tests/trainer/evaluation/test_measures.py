"""Measures of pictures whose truth is known: as asked, all alike, or another model's."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from mezzotint.trainer.evaluation.measures import DINO, KEPT, ORDINARY, SUBJECT, Cases, Found, measure
from mezzotint.trainer.evaluation.report import change, estimate, figures, table_rows, write_report
from mezzotint.trainer.evaluation.statistics import Pixels
from mezzotint.trainer.evaluation.suite import Case, Group, Words, draw_cases
from tests.trainer.evaluation.known import SUITE, gallery, noisy

WORDS = Words("sks cat", "cat")
CASES: Cases = draw_cases(SUITE, WORDS, 0.15)


def painted(case: Case, thing: str = "") -> Pixels:
    """A model's picture of a thing on the case's ground."""
    name = thing or case.thing
    index = len(gallery().names) + case.seed % 5 if name == WORDS.subject else gallery().number(name)
    picture: Pixels = gallery().on(case.ground)[index]
    return picture


def as_asked(**instead: str) -> Mapping[Group, Pixels]:
    """Pictures as asked, or of another thing for a whole group."""
    return {
        group: noisy(np.stack([painted(case, instead.get(group, "")) for case in cases]))
        for group, cases in CASES.items()
    }


def test_pictures_as_asked_have_full_marks() -> None:
    found = measure(as_asked(), CASES, gallery(), WORDS, as_asked())
    shares = {name: values.mean() for name, values in found.items() if values.dtype == np.bool_}
    assert shares == dict.fromkeys(shares, 1.0)
    assert len(shares) == 10
    assert found["others: PSNR to the named picture, dB"] == pytest.approx(24.5, abs=3)
    assert found["others: PSNR to the base's own picture, dB"].min() > 80


def test_a_subject_that_was_not_learned_is_seen_and_its_ground_still_counts() -> None:
    found = measure(as_asked(subject="cat"), CASES, gallery(), WORDS)
    assert not found[SUBJECT].any()
    assert found["subject: ground as asked"].all()
    assert KEPT not in found


def test_a_class_that_has_become_the_subject_is_seen() -> None:
    found = measure(as_asked(**{"class": WORDS.subject}), CASES, gallery(), WORDS, as_asked())
    assert not found[ORDINARY].any()
    assert found["class: PSNR to the base's own picture, dB"].max() < 25


def test_other_things_that_were_forgotten_are_seen() -> None:
    found = measure(as_asked(others="cat"), CASES, gallery(), WORDS, as_asked())
    assert not found[KEPT].any()
    assert not found["others: top-1 is what was named"].any()


def test_a_wrong_ground_is_seen() -> None:
    pictures = dict(as_asked())
    wrong = [Case(case.prompt, case.seed, case.thing, "pink") for case in CASES[Group.SUBJECT]]
    pictures[Group.SUBJECT] = np.stack([painted(case) for case in wrong])
    found = measure(pictures, CASES, gallery(), WORDS)
    assert not found["subject: ground as asked"].any()


def test_diversity_is_none_where_all_pictures_of_a_prompt_are_one() -> None:
    name = "class: difference of two pictures of one prompt, levels"
    pictures = {group: np.stack([painted(case) for case in cases]) for group, cases in CASES.items()}
    assert measure(pictures, CASES, gallery(), WORDS)[name].max() == 0
    assert measure(as_asked(), CASES, gallery(), WORDS)[name].mean() == pytest.approx(16 * 2**0.5, rel=0.2)


def test_changes_are_taken_in_pairs() -> None:
    hits = np.arange(200) % 2 == 0
    assert estimate(hits).text(1) == "50.0 (43.1…56.9)"
    assert change(hits, hits).text(1) == "0.0 (0.0…0.0)"
    one_lost = hits.copy()
    one_lost[0] = False
    assert change(one_lost, hits).value == pytest.approx(-0.5)
    assert change(one_lost, hits).low >= -2


def test_cosines_have_three_decimals_and_what_is_changed_is_among_the_figures() -> None:
    before, after = np.linspace(0.70, 0.72, 20), np.linspace(0.71, 0.73, 20)
    found: dict[str, Found] = {"before": {DINO: before}, "after": {DINO: after}}
    (row,) = table_rows(found)
    assert row["before"].startswith("0.710 (0.70")
    assert row["after minus before"] == "0.010 (0.010…0.010)"
    assert figures(found)["after minus before"] == {DINO: [0.01, 0.01, 0.01]}
    assert figures(found)["before"][DINO][0] == 0.71


def test_the_report_has_a_table_a_page_figures_and_a_sheet_of_each_group(tmp_path: Path) -> None:
    folder = tmp_path / "evaluation"
    before, after = as_asked(subject="cat"), as_asked()
    found = {
        "before": measure(before, CASES, gallery(), WORDS),
        "fp32": measure(after, CASES, gallery(), WORDS, before),
        "int8": measure(after, CASES, gallery(), WORDS, before),
    }
    rows = table_rows(found)
    assert list(rows[0]) == ["measure", "before", "fp32", "int8", "fp32 minus before", "int8 minus fp32"]
    assert rows[0]["before"].startswith("0.0 (0.0…")
    assert rows[0]["fp32 minus before"] == "100.0 (100.0…100.0)"
    page = write_report(folder, "<sks>", found, {"before": before, "fp32": after, "int8": after}, CASES, {})
    assert {path.name for path in folder.iterdir()} == {
        "table.md", "index.html", "results.json", "subject.png", "class.png", "others.png",
    }  # fmt: skip
    assert "&lt;sks&gt;" in page.read_text(encoding="utf-8")
