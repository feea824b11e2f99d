"""How often what was kept was reused, over the cores of a server that come and go. Knows no Prometheus."""

import threading
import weakref
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from mezzotint.engines.shapes import Uses
from mezzotint.server.served import Served

OfCaches: TypeAlias = Mapping[str, Uses]
"""By the cache's name."""


def total(uses: Iterable[OfCaches]) -> OfCaches:
    """Return the sums."""
    sums: dict[str, Uses] = {}
    for caches in uses:
        for name, of in caches.items():
            before = sums.get(name, Uses())
            sums[name] = Uses(before.hits + of.hits, before.misses + of.misses)
    return sums


class CacheTotals:
    """Sums by bundle's name that never fall: those of cores that are gone stay, as they were last seen."""

    def __init__(self) -> None:
        self._seen: dict[weakref.ref[Served], tuple[str, OfCaches]] = {}
        self._gone: dict[str, OfCaches] = {}
        self._lock = threading.Lock()

    def of(self, cores: Iterable[Served]) -> Mapping[str, OfCaches]:
        """Return the sums up to now; ``cores`` are all that there are."""
        with self._lock:
            seen = {weakref.ref(core): (core.model.name, core.cache_uses()) for core in cores}
            for core in self._seen.keys() - seen.keys():
                name, uses = self._seen[core]
                self._gone[name] = total((self._gone.get(name, {}), uses))
            self._seen = seen
            names = {name for name, _ in seen.values()} | self._gone.keys()
            return {
                name: total([self._gone.get(name, {}), *(uses for of, uses in seen.values() if of == name)])
                for name in sorted(names)
            }
