"""Rows are split over prepared counts, padded where too few, and joined again."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mezzotint.engines import device
from mezzotint.engines.rows import call_in_parts, doublings, knee, split_rows
from tests.elsewhere import elsewhere, watch

Array = npt.NDArray[np.float32]


@pytest.mark.parametrize(
    ("num_rows", "row_counts", "expected"),
    [
        (8, (1, 2, 4, 8), [8]),
        (7, (1, 2, 4, 8), [4, 2, 1]),
        (7, (4, 2), [4, 2, 2]),
        (1, (2, 4), [2]),
        (3, (1,), [1, 1, 1]),
        (0, (1, 2), []),
    ],
)
def test_rows_go_to_the_largest_counts_that_fit(
    num_rows: int, row_counts: tuple[int, ...], expected: list[int]
) -> None:
    assert split_rows(num_rows, row_counts) == expected


@given(st.integers(1, 200), st.sets(st.integers(1, 32), min_size=1))
def test_parts_cover_all_rows_and_only_the_last_needs_padding(num_rows: int, row_counts: set[int]) -> None:
    parts = split_rows(num_rows, tuple(row_counts))
    assert set(parts) <= row_counts
    assert sum(parts[:-1]) < num_rows <= sum(parts)


def test_no_prepared_count_is_refused() -> None:
    with pytest.raises(ValueError, match="row_counts is empty"):
        split_rows(1, ())


@pytest.mark.parametrize(("most", "expected"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_doublings_end_with_the_most(most: int, expected: tuple[int, ...]) -> None:
    assert doublings(most) == expected


def test_the_knee_is_the_fewest_rows_whose_time_per_row_is_near_the_best() -> None:
    assert knee({1: 10.0, 2: 18.0, 4: 33.0, 8: 64.0}) == 4
    assert knee({1: 10.0, 2: 20.0, 4: 40.0}) == 1
    assert knee({1: 10.0, 2: 18.0, 4: 33.0, 8: 64.0}, within=0.0) == 8


@given(st.integers(1, 20), st.sets(st.integers(1, 8), min_size=1))
def test_a_call_in_parts_gives_what_one_call_gives(num_rows: int, row_counts: set[int]) -> None:
    first = np.arange(num_rows * 3, dtype=np.float32).reshape(num_rows, 3)
    second = np.arange(num_rows, dtype=np.float32)
    called: list[int] = []

    def call(arrays: list[Array]) -> list[Array]:
        called.append(len(arrays[0]))
        return [arrays[0] * 2 + arrays[1][:, None], arrays[1] - 1]

    outputs = call_in_parts([first, second], tuple(row_counts), call)
    assert called == split_rows(num_rows, tuple(row_counts))
    np.testing.assert_array_equal(outputs[0], first * 2 + second[:, None])
    np.testing.assert_array_equal(outputs[1], second - 1)


def test_arrays_of_different_rows_are_no_call() -> None:
    with pytest.raises(ValueError, match=r"arrays of \[2, 1\] rows"):
        call_in_parts([np.zeros((2, 3)), np.zeros((1, 3))], (1, 2), lambda arrays: arrays)


def test_padding_repeats_the_last_row() -> None:
    seen: list[Array] = []

    def call(arrays: list[Array]) -> list[Array]:
        seen.append(arrays[0])
        return arrays

    (output,) = call_in_parts([np.array([[1.0], [2.0], [3.0]], np.float32)], (4,), call)
    assert seen[0][:, 0].tolist() == [1, 2, 3, 3]
    assert output[:, 0].tolist() == [1, 2, 3]


def test_rows_of_a_device_are_split_padded_and_joined_there(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = watch(monkeypatch)
    rows = elsewhere(np.arange(5, dtype=np.float32))
    (joined,) = call_in_parts([rows], (2,), lambda arrays: [arrays[0] * 2])
    assert not reads.read
    assert device.to_host(joined).tolist() == [0, 2, 4, 6, 8]
