"""Prompts that change with the steps, by the examples that A1111's parser documents, restated as runs of steps."""

import itertools
import time

import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.prompts.editing import MAX_CHANGES, texts_by_step

MALE, FEMALE = "male", "female"
IN_TEN_STEPS = [
    ("test", [(10, "test")]),
    ("a [b:3]", [(3, "a "), (7, "a b")]),
    ("a [b: 3]", [(3, "a "), (7, "a b")]),
    ("a [[[b]]:2]", [(2, "a "), (8, "a [[b]]")]),
    ("[(a:2):3]", [(3, ""), (7, "(a:2)")]),
    ("a [b : c : 1] d", [(1, "a b  d"), (9, "a  c  d")]),
    ("a[b:[c:d:2]:1]e", [(1, "abe"), (1, "ace"), (8, "ade")]),
    ("a [unbalanced", [(10, "a [unbalanced")]),
    ("a [b:.5] c", [(5, "a  c"), (5, "a b c")]),
    ("a [{b|d{:.5] c", [(5, "a  c"), (5, "a {b|d{ c")]),
    ("((a][:b:c [d:3]", [(3, "((a][:b:c "), (7, "((a][:b:c d")]),
    ("[a|(b:1.1)]", [(1, "a"), (1, "(b:1.1)")] * 5),
    ("[fe|]male", [(1, FEMALE), (1, MALE)] * 5),
    ("[fe|||]male", [(1, FEMALE), (3, MALE), (1, FEMALE), (3, MALE), (1, FEMALE), (1, MALE)]),
    # what the wiki's page of features says beside them
    ("a [b::3] c", [(3, "a b c"), (7, "a  c")]),
    ("[cow|horse] in a field", [(1, "cow in a field"), (1, "horse in a field")] * 5),
    # and what follows from the grammar
    ("[a:b:1.0]", [(10, "a")]),
    ("[a:b:0]", [(10, "b")]),
    ("[a:b:-1]", [(10, "b")]),
    ("[a:b:99]", [(10, "a")]),
    ("[a|b:c:5]", [(5, "a|b"), (5, "c")]),
    ("[[a|b]:c:2]", [(1, "a"), (1, "b"), (8, "c")]),
    ("a: b | c, d", [(10, "a: b | c, d")]),
    (r"\[a:b:3\]", [(10, r"\[a:b:3\]")]),
    (r"[\[:\::3]", [(3, r"\["), (7, r"\:")]),
    ("[a:b:c:3]", [(10, "[a:b:c:3]")]),
    ("[a:b:x3]", [(10, "[a:b:x3]")]),
    ("([a):b:3]", [(10, "([a):b:3]")]),
    ("", [(10, "")]),
]


@pytest.mark.parametrize(("prompt", "runs"), IN_TEN_STEPS, ids=[prompt for prompt, _ in IN_TEN_STEPS])
def test_a_prompt_shows_each_step_what_a1111_documents(prompt: str, runs: list[tuple[int, str]]) -> None:
    texts = texts_by_step(prompt, 10)
    assert [(len(list(same)), text) for text, same in itertools.groupby(texts)] == runs


def test_the_landscape_of_a1111s_parser_changes_at_its_shares_of_a_hundred_steps() -> None:
    prompt = (
        "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
        "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
    )
    texts = texts_by_step(prompt, 100)
    shown = [
        (25, "a mountain and an oak in foreground shoddy"),
        (25, "a lake and an oak in foreground in background shoddy"),
        (10, "a lake and an oak in foreground in background masterful"),
        (15, "a lake and an oak in background masterful"),
        (25, "a lake and a christmas tree in background masterful"),
    ]
    assert texts == tuple(f"fantasy landscape with {text}" for count, text in shown for _ in range(count))


def test_a_share_of_the_steps_is_rounded_down_as_it_is_written() -> None:
    assert texts_by_step("[a:b:0.29]", 100).count("a") == 29  # 0.29 * 100 is below 29 in floating point
    assert texts_by_step("[a:b:0.25]", 10).count("a") == 2


def test_more_changes_than_the_limit_are_refused() -> None:
    assert texts_by_step("[a|b]" * MAX_CHANGES, 2) == ("a" * MAX_CHANGES, "b" * MAX_CHANGES)
    with pytest.raises(InvalidRequest, match=f"more than {MAX_CHANGES} of its brackets change with the steps"):
        texts_by_step("[a|b]" * (MAX_CHANGES + 1), 2)


@pytest.mark.parametrize(
    "prompt",
    ["(" * 16_384, "[" * 16_384, "[" * 8_192 + "]" * 8_192, "(]" * 8_192, "[a:" + "9" * 16_000 + "]", ":" * 16_384,
     "[:" * 8_000 + ":1]", "|[" * 8_192, "[a:b:" + "9" * 10_000 + "." + "9" * 5_000 + "]"],
    ids=lambda prompt: prompt[:4],
)  # fmt: skip
def test_the_longest_prompts_of_brackets_take_no_time(prompt: str) -> None:
    began = time.process_time()
    assert len(texts_by_step(prompt, 1000)) == 1000
    assert time.process_time() - began < 2
