from types import SimpleNamespace
from typing import Any

from mezzotint.engines.shapes import Uses
from mezzotint.server.cache_uses import CacheTotals, total


class Used:
    """A core of a name whose one cache was used so often."""

    def __init__(self, name: str, hits: int, misses: int) -> None:
        self.model = SimpleNamespace(name=name)
        self.uses = Uses(hits, misses)

    def cache_uses(self) -> dict[str, Uses]:
        return {"plans": Uses(self.uses.hits, self.uses.misses)}


def seen(totals: CacheTotals, *cores: Any) -> dict[str, tuple[int, int]]:
    return {name: (of["plans"].hits, of["plans"].misses) for name, of in totals.of(cores).items()}


def test_sums_are_by_cache() -> None:
    assert total([{"a": Uses(1, 2)}, {"a": Uses(3, 4), "b": Uses(5, 6)}]) == {"a": Uses(4, 6), "b": Uses(5, 6)}
    assert total([]) == {}


def test_a_version_that_takes_anothers_place_adds_to_what_that_has_counted() -> None:
    totals, old, new, other = CacheTotals(), Used("emoji", 5, 2), Used("emoji", 0, 1), Used("pets", 1, 1)
    assert seen(totals, old, other) == {"emoji": (5, 2), "pets": (1, 1)}
    old.uses.hits = 7
    assert seen(totals, old, new, other) == {"emoji": (7, 3), "pets": (1, 1)}
    del old
    assert seen(totals, new) == {"emoji": (7, 3), "pets": (1, 1)}
    new.uses.hits = 4
    assert seen(totals, new) == {"emoji": (11, 3), "pets": (1, 1)}
