"""Which row counts each engine is prepared for: those that gain something, as far as memory has room for them.

Predicts from what the manifest says was measured; knows no runtime and loads nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mezzotint.engines.component import Component
from mezzotint.engines.errors import OverMemoryBudget
from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.memory import size_text
from mezzotint.engines.rows import Curve, call_ms, knee

# A guided prompt is two rows, and pictures are decoded one by one; more is split, which costs nothing on a CPU.
_MAX_PREPARED = dict.fromkeys((Component.VAE_DECODER, Component.VAE_ENCODER, Component.SAFETY_CHECKER), 1)
_MAX_PREPARED |= {Component.TEXT_ENCODER: 2}
# Nearly every call of a UNet has two: as two calls it takes 3 to 6 % longer where the knee is at one.
_LEAST_PREPARED = {Component.UNET: 2}
_PER_FILE_BYTE = 1.25  # what an engine takes for each byte of its files, where nothing was measured
_MARGIN_BYTES = 16 << 20  # beside others an engine takes up to that much more than alone (measured)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An engine and the row counts that it would be prepared for if memory were no matter.

    Attributes:
        entry: what the manifest says of it.
        counts: the row counts.
        file_bytes: the size of its files.
        packs_each_shape: whether each row count holds packed weights of its own.
    """

    entry: EngineEntry
    counts: tuple[int, ...]
    file_bytes: int
    packs_each_shape: bool

    def shape_bytes(self) -> dict[int, int]:
        """Return the predicted bytes of each row count alone: as measured when compiling, or by the files' size."""
        guess = int(self.file_bytes * _PER_FILE_BYTE)
        alone = {count: self.entry.resident_bytes.get(count, guess) for count in self.counts}
        return {count: num_bytes + min(num_bytes // 4, _MARGIN_BYTES) for count, num_bytes in alone.items()}

    def num_bytes(self, counts: Sequence[int]) -> int:
        """Return the predicted bytes of these row counts together."""
        each = self.shape_bytes()
        return (sum if self.packs_each_shape else max)(each[count] for count in counts)

    def least_bytes(self) -> int:
        """Return the predicted bytes of the one row count that any call can be split into."""
        return self.num_bytes((min(self.counts),))

    def call_ms(self, num_rows: int, counts: Sequence[int]) -> float:
        """Return the milliseconds of a call that is split over these row counts; 0 where they were not measured."""
        return call_ms(num_rows, counts, self.entry.step_ms)


def row_counts(entry: EngineEntry, curve: Curve | None = None) -> tuple[int, ...]:
    """Return the row counts to prepare an engine for: those of ``possible_counts`` up to the knee of its curve.

    A UNet is prepared for two rows even where its knee is at one. ``curve`` is one of another size, or a newer one.
    """
    possible = possible_counts(entry)
    step_ms = entry.step_ms if curve is None else curve
    most = knee(step_ms) if step_ms else possible[-1]
    most = max(most, _LEAST_PREPARED.get(entry.component, most))
    return tuple(count for count in possible if count <= most) or possible[:1]


def possible_counts(entry: EngineEntry) -> tuple[int, ...]:
    """Return the row counts of the largest class that agrees bit for bit, as far as calls of them are made."""
    best = max(entry.row_classes, key=len)
    most = _MAX_PREPARED.get(entry.component, best[-1])
    return tuple(count for count in best if count <= most) or best[:1]


def max_rows(entry: EngineEntry, curve: Curve | None = None) -> int:
    """Return the most rows of a call that gain something, by its own curve or another."""
    # guidance takes two rows of one call, even where only single rows are prepared and the engine splits it
    return min(entry.axes["rows"].max, max(2, *row_counts(entry, curve)))


def fit(wanted: Sequence[Wanted], has_bytes: int, budget_bytes: int) -> list[tuple[int, ...]]:
    """Return the row counts of each engine that fit together in a memory budget.

    Each engine has its smallest one; then those are added that gain the most time for their bytes.

    Args:
        wanted: the engines.
        has_bytes: what the process takes without them.
        budget_bytes: what it may take.

    Raises:
        OverMemoryBudget: even one row count of each engine does not fit.
    """
    chosen: list[tuple[int, ...]] = [(min(engine.counts),) for engine in wanted]
    taken = has_bytes + sum(engine.least_bytes() for engine in wanted)
    if taken > budget_bytes:
        raise OverMemoryBudget(
            f"memory budget {size_text(budget_bytes)}: one row count of each engine needs {size_text(taken)}, "
            f"{size_text(has_bytes)} of it before any is loaded; allow that much, or serve fewer bundles or instances, "
            "or a bundle of a lower precision"
        )
    more = [(i, count) for i, engine in enumerate(wanted) for count in engine.counts if count not in chosen[i]]
    for i, count in sorted(more, key=lambda item: _order(wanted[item[0]], item[1])):
        added = tuple(sorted((*chosen[i], count)))
        num_bytes = wanted[i].num_bytes(added) - wanted[i].num_bytes(chosen[i])
        if taken + num_bytes <= budget_bytes:
            chosen[i], taken = added, taken + num_bytes
    return chosen


def shed(wanted: Sequence[Wanted], num_bytes: int) -> list[tuple[int, ...]] | None:
    """Return the row counts that are left when so many bytes are given up; None where that is more than can be.

    Only engines whose row counts hold weights of their own give any, and each keeps its smallest one. Those go first
    that gain the least time for their bytes.
    """
    counts = [engine.counts for engine in wanted]
    extra = [(i, count) for i, engine in enumerate(wanted) for count in engine.counts if count != min(engine.counts)]
    freed = 0
    for i, count in sorted(extra, key=lambda item: _order(wanted[item[0]], item[1]), reverse=True):
        if freed >= num_bytes:
            break
        if wanted[i].packs_each_shape:
            counts[i] = tuple(other for other in counts[i] if other != count)
            freed += wanted[i].num_bytes((count,))
    return counts if freed >= num_bytes else None


def _order(engine: Wanted, count: int) -> tuple[float, int]:
    """Return what sorts the row counts that may be added: by milliseconds gained for a byte, then by rows."""
    gain = engine.call_ms(count, (min(engine.counts),)) - engine.call_ms(count, (count,))
    return -gain / max(1, engine.shape_bytes()[count]), count
