"""Words laid into rows of the text encoder, six to a row."""

import numpy as np
import pytest

from mezzotint.engines.prompts.chunks import COMMA_BACKTRACK, Chunks, Special, Weighted, chunked, padded

BOS, EOS, PAD, COMMA = 100, 101, 102, 50
SIX = Special(8, BOS, EOS, PAD, COMMA)


def words(*tokens: int) -> list[Weighted]:
    return [((token,), 1.0) for token in tokens]


def read(chunks: Chunks) -> list[list[int]]:
    """Return each chunk's tokens; what is around them must be the special ones."""
    found = []
    for row in chunks.ids.tolist():
        end = row.index(EOS)
        assert row[0] == BOS
        assert set(row[end + 1 :]) <= {PAD}
        found.append(row[1:end])
    return found


def test_an_empty_text_has_one_chunk() -> None:
    assert read(chunked([[]], SIX)) == [[]]
    assert chunked([[]], SIX).ids.tolist() == [[BOS, EOS, *[PAD] * 6]]


def test_a_long_text_fills_one_chunk_after_the_other() -> None:
    assert read(chunked([words(*range(6))], SIX)) == [[0, 1, 2, 3, 4, 5]]
    assert read(chunked([words(*range(14))], SIX)) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], [12, 13]]


def test_each_section_begins_a_chunk_and_an_empty_one_at_the_end_is_none() -> None:
    assert read(chunked([words(1), words(2)], SIX)) == [[1], [2]]
    assert read(chunked([[], words(2)], SIX)) == [[], [2]]
    assert read(chunked([words(1), []], SIX)) == [[1]]
    assert read(chunked([words(1), [], []], SIX)) == [[1], []]  # as A1111 has it


def test_what_follows_the_last_comma_goes_along_to_the_next_chunk() -> None:
    assert read(chunked([words(1, 2, COMMA, 3, 4, 5, 6, 7)], SIX)) == [[1, 2, COMMA], [3, 4, 5, 6, 7]]
    assert read(chunked([words(1, 2, 3, 4, 5, COMMA, 6)], SIX)) == [[1, 2, 3, 4, 5, COMMA], [6]]
    assert read(chunked([words(1, 2, 3, 4, 5, 6, COMMA, 7)], SIX)) == [[1, 2, 3, 4, 5, 6], [COMMA, 7]]


def test_a_comma_that_is_far_back_parts_nothing() -> None:
    special = Special(77, BOS, EOS, PAD, COMMA)
    far = [*range(75 - COMMA_BACKTRACK - 2), COMMA, *range(COMMA_BACKTRACK + 1), 7]
    near = [*range(75 - COMMA_BACKTRACK), COMMA, *range(COMMA_BACKTRACK - 1), 7]
    assert list(map(len, read(chunked([words(*far)], special)))) == [75, 1]
    assert list(map(len, read(chunked([words(*near)], special)))) == [76 - COMMA_BACKTRACK, COMMA_BACKTRACK]


def test_the_tokens_of_one_word_stay_together() -> None:
    assert read(chunked([[*words(1, 2, 3, 4), ((7, 8, 9), 1.0), ((5,), 1.0)]], SIX)) == [[1, 2, 3, 4], [7, 8, 9, 5]]


def test_weights_lie_where_their_words_do_and_special_tokens_have_none() -> None:
    chunks = chunked([[((1,), 1.5), ((2, 3), 0.5)], [((4,), -1.0)]], SIX)
    assert chunks.weights.tolist() == [[1, 1.5, 0.5, 0.5, 1, 1, 1, 1], [1, -1, 1, 1, 1, 1, 1, 1]]
    assert chunks.weights.dtype == np.float32


@pytest.mark.parametrize("count", [1, 3])
def test_a_text_is_filled_up_with_empty_chunks(count: int) -> None:
    filled = padded(chunked([[((1,), 2.0)]], SIX), count, SIX)
    assert read(filled) == [[1], *[[]] * (count - 1)]
    assert filled.weights.sum() == 8 * count + 1
