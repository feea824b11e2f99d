"""How a call's rows are split over the row counts that an engine is prepared for. Pure arithmetic."""

from collections.abc import Sequence


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


def doublings(most: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to ``most``, which is always the last."""
    counts = [1]
    while counts[-1] * 2 <= most:
        counts.append(counts[-1] * 2)
    return tuple(counts) if counts[-1] == most else (*counts, most)


def knee(step_ms: dict[int, float], *, within: float = 0.05) -> int:
    """Return the fewest rows whose time per row is within ``within`` of the best."""
    best = min(ms / rows for rows, ms in step_ms.items())
    return min(rows for rows, ms in step_ms.items() if ms / rows <= best * (1 + within))
