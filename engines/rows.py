"""How a call's rows are split over the row counts that an engine is prepared for. Array-API code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from mezzotint.engines import device

Rows: TypeAlias = Any
"""An array of any array API library, C-contiguous, with rows on its first axis."""

Curve = Mapping[int, float]
"""Milliseconds of an engine's calls by their rows."""


def split_rows(num_rows: int, row_counts: Sequence[int]) -> list[int]:
    """Return row counts that cover ``num_rows``: the largest that fit, then the smallest that holds the rest.

    Only the last can be larger than the rows that are left; the caller pads it. Raises ValueError without row counts.
    """
    counts = sorted(row_counts)
    if not counts:
        raise ValueError("row_counts is empty; an engine is prepared for at least one")
    parts = []
    left = num_rows
    while left > 0:
        part = max((count for count in counts if count <= left), default=counts[0])
        parts.append(part)
        left -= part
    return parts


def call_ms(num_rows: int, row_counts: Sequence[int], step_ms: Curve) -> float:
    """Return the milliseconds of a call that is split over these row counts; parts that were not measured count 0."""
    return sum(step_ms.get(part, 0.0) for part in split_rows(num_rows, row_counts))


def doublings(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to ``most``, which is always the last."""
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return tuple(counts) if counts[-1] == most else (*counts, most)


def knee(step_ms: Curve, *, within: float = 0.05) -> int:
    """Return the fewest rows whose time per row is within ``within`` of the best."""
    best = min(ms / rows for rows, ms in step_ms.items())
    return min(rows for rows, ms in step_ms.items() if ms / rows <= best * (1 + within))


def call_in_parts(
    arrays: Sequence[Rows], row_counts: Sequence[int], call: Callable[[list[Rows]], Sequence[Rows]]
) -> list[Rows]:
    """Run ``call`` on parts of ``arrays`` that have prepared row counts and return its outputs, joined again.

    All arrays have the same number of rows, at least one, on their first axis. Where rows are too few for the smallest
    prepared count, the last one is repeated and what comes of it is dropped.
    """
    num_rows = arrays[0].shape[0]
    if any(array.shape[0] != num_rows for array in arrays):
        raise ValueError(f"arrays of {[array.shape[0] for array in arrays]} rows: rows of one call belong together")
    counts = split_rows(num_rows, row_counts)
    arrays = [padded(array, sum(counts)) for array in arrays]
    parts: list[Sequence[Rows]] = []
    first = 0
    for count in counts:
        parts.append(call([array[first : first + count, ...] for array in arrays]))
        first += count
    return [
        (part[0] if len(part) == 1 else device.xp(part[0]).concat(part))[:num_rows, ...]
        for part in zip(*parts, strict=True)
    ]


def padded(array: Rows, num_rows: int) -> Rows:
    """Return an array of ``num_rows``: the last row is repeated where there are fewer."""
    missing = num_rows - array.shape[0]
    return array if not missing else device.xp(array).concat([array, *[array[-1:, ...]] * missing])
