"""Weights of words, by the examples that A1111's parser documents, restated as text and powers of its factors."""

import time

import pytest

from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.prompts.attention import MAX_DEPTH, Span, literal, parse_attention
from mezzotint.engines.prompts.editing import texts_by_step

ONE_SECTION = [
    ("normal text", [("normal text", 1)]),
    ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
    ("(unbalanced", [("unbalanced", 1.1)]),
    (r"\(literal\]", [("(literal]", 1)]),
    ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
    (
        "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
        [("a ", 1), ("house", 1.3 * 1.1**2), (" ", 1.1), ("on", 1), (" a ", 1.1), ("hill", 0.5 * 1.1),
         (", sun, ", 1.1), ("sky", 1.1**4), (".", 1.1)],
    ),
    # what the comment and the expression say beside them
    ("(abc:3.12)", [("abc", 3.12)]),
    ("(a: -1.5 )", [("a", -1.5)]),
    ("[abc]", [("abc", 1 / 1.1)]),
    ("[[a] b", [("a", 1.1**-2), (" b", 1 / 1.1)]),
    (r"a\\b \[c\) d\e", [(r"a\b [c) de", 1)]),
    (r"(hat \(red\):1.2)", [("hat (red)", 1.2)]),
    ("a: b, c:1.3) ]", [("a: b, c:1.3) ]", 1)]),
    ("(a:1.3.2)", [("a:1.3.2", 1.1)]),
    ("(a:)", [("a:", 1.1)]),
    ("()", []),
    ("", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "spans"), ONE_SECTION, ids=[text for text, _ in ONE_SECTION])
def test_brackets_weigh_words_as_a1111_documents(text: str, spans: list[tuple[str, float]]) -> None:
    (section,) = parse_attention(text)
    assert [span.text for span in section] == [text for text, _ in spans]
    assert [span.weight for span in section] == pytest.approx([weight for _, weight in spans])


def test_break_parts_a_text_inside_and_outside_of_brackets() -> None:
    assert parse_attention("a BREAK (b BREAK c:2) BREAKING\nBREAK") == (
        (Span("a"),),
        (Span("b", 2.0),),
        (Span("c", 2.0), Span(" BREAKING")),
        (),
    )


@pytest.mark.parametrize("text", [*(text for text, _ in ONE_SECTION), "a BREAK b", r"BREAKS \\BREAK", "[a:b:3] [a|b]"])
def test_a_literal_text_is_one_span_as_it_stands(text: str) -> None:
    assert parse_attention(literal(text)) == ((Span(text),) if text else (),)
    assert texts_by_step(literal(text), 5) == (literal(text),) * 5


@pytest.mark.parametrize(
    "text", ["(a:101)", "(a:-100.5)", "((((a:99))))", "(a:" + "9" * 400 + ")", "((a:0):" + "9" * 400 + ")"]
)
def test_a_weight_beyond_any_use_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"the weight .* of 'a' must be between -100 and 100"):
        parse_attention(text)


def test_deeper_nesting_than_the_limit_is_refused() -> None:
    parse_attention("([" * (MAX_DEPTH // 2) + "a")
    with pytest.raises(InvalidRequest, match=f"nested more than {MAX_DEPTH} deep"):
        parse_attention("([" * (MAX_DEPTH // 2) + "(a")


@pytest.mark.parametrize(
    "text",
    ["(a)" * 5_461, ("([" * 30 + "a" * 100 + "])" * 30) * 70, "a:" * 8_192, ":" + "9" * 16_000, ": " * 8_000 + ")",
     "BREAK " * 2_700, "\\" * 16_384, " " * 16_384],
    ids=lambda text: text[:4],
)  # fmt: skip
def test_the_longest_texts_take_no_time(text: str) -> None:
    began = time.process_time()
    parse_attention(text)
    assert time.process_time() - began < 2
