"""The memory budget of a process whose bundles come and go: what each of them holds of it. Imports bundle and shapes.

Bytes are predicted ones, the compiler's own measurement; so whether a bundle fits does not depend on what was served.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from mezzotint.engines.bundle import Loading, LoadOptions, plan_loading, process_bytes, wanted_engines
from mezzotint.engines.errors import OverMemoryBudget
from mezzotint.engines.memory import size_text
from mezzotint.engines.prepared import shed
from mezzotint.engines.shapes import CompiledShapes


class MemoryBudget:
    """Shares ``options.memory_budget`` out to bundles, from any thread; without one every bundle fits.

    Make it before any bundle is loaded: what the process takes then is not theirs.

    Args:
        options: how bundles are loaded.
        more: how each further instance of them is, which has engines and bytes of its own.
    """

    def __init__(self, options: LoadOptions, more: Sequence[LoadOptions] = ()) -> None:
        self._options = options
        self._more = tuple(more)
        self._limit = options.memory_budget
        self._shapes = None if self._limit is None else CompiledShapes()
        self._process_bytes = process_bytes()
        self._held: list[Loading] = []
        self._lock = threading.Lock()

    def plan(self, folders: Sequence[Path]) -> tuple[Loading, ...]:
        """Give each bundle its part, to be held until ``release``.

        Raises:
            BundleError: a bundle is missing or was made for another runtime.
            OverMemoryBudget: they have no room together.
        """
        with self._lock:
            together = plan_loading(folders, self._options, self._taken_bytes(), self._shapes, self._more)
            each = tuple(together.of_bundle(folder) for folder in together.wanted)
            self._held.extend(each)
            self._limit_shapes()
        return each

    def release(self, loading: Loading) -> None:
        """Take back the part of a bundle whose engines are closed."""
        with self._lock:
            self._held = [held for held in self._held if held is not loading]
            self._limit_shapes()

    def shrink(self, loading: Loading, num_bytes: int) -> Loading | None:
        """Have a bundle hold fewer row counts and so many bytes less; returns its part then, None where it cannot.

        Its engines go on: what they have compiled of those row counts makes room when other shapes come, and rows go
        through those that are left, with the same result.
        """
        with self._lock:
            counts = shed(loading.engines, num_bytes)
            if counts is None:
                return None
            smaller = loading.with_counts(counts)
            self._held = [smaller if held is loading else held for held in self._held]
            return smaller

    def missing_bytes(self, folder: Path) -> int:
        """Return how much others must release so that a bundle fits; 0 or less is nothing. Raises BundleError."""
        return 0 if self._limit is None else self._taken_bytes() + self._least_bytes(folder) - self._limit

    def refusal(self, folder: Path, num_idle_bytes: int) -> OverMemoryBudget:
        """Return the error of a bundle that has no room, even in what idle ones hold."""
        limit = self._limit or 0
        return OverMemoryBudget(
            f"{folder.name}: one row count of each engine needs {size_text(self._least_bytes(folder))}, but "
            f"{size_text(max(0, limit - self._taken_bytes()))} of the memory budget of {size_text(limit)} are free and "
            f"idle bundles hold {size_text(num_idle_bytes)}; unload one, try again when more are idle, or allow more"
        )

    def _least_bytes(self, folder: Path) -> int:
        each = (wanted_engines(folder, options) for options in (self._options, *self._more))
        return sum(engine.least_bytes() for engines in each for engine in engines.values())

    def _taken_bytes(self) -> int:
        return self._process_bytes + sum(loading.num_bytes() for loading in self._held)

    def _limit_shapes(self) -> None:
        if self._limit is not None and self._shapes is not None:
            unpacked = sum(loading.num_bytes(packed=False) for loading in self._held)
            self._shapes.limit(self._limit - self._process_bytes - unpacked)
