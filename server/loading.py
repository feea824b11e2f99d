"""Makes what a server serves of bundles on disk, within its memory budget. Knows no wire and no event loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from mezzotint.engines.budget import MemoryBudget
from mezzotint.engines.bundle import Loading, LoadOptions
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.errors import OverMemoryBudget
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.engines.memory import give_back
from mezzotint.server.catalog import Bundle
from mezzotint.server.health import Failures
from mezzotint.server.served import Served


class Loader(Protocol):
    """What ``lifecycle.py`` needs of it; any thread may call it."""

    def read(self, folder: Path) -> Bundle:
        """Return the bundle in a folder; loads no engine. Raises BundleError."""
        ...

    def missing_bytes(self, bundle: Bundle) -> int:
        """Return how much others must release so that a bundle fits; 0 or less is nothing. Raises BundleError."""
        ...

    def refusal(self, bundle: Bundle, num_idle_bytes: int) -> OverMemoryBudget:
        """Return the error of a bundle that has no room, even in what idle ones hold."""
        ...

    def shrink(self, loading: Loading, num_bytes: int) -> Loading | None:
        """Have a loaded bundle hold so many bytes less; returns its part then, None where that cannot be."""
        ...

    def plan(self, bundles: Sequence[Bundle]) -> Sequence[Loading]:
        """Give each bundle its part of the memory, until ``release``. Raises BundleError, OverMemoryBudget."""
        ...

    def load(self, bundle: Bundle, loading: Loading, failures: Failures) -> Served:
        """Load a bundle and run every engine once. Raises BundleError, DeviceNotFound, EngineFailed."""
        ...

    def release(self, loading: Loading) -> None:
        """Give the memory back of a bundle whose engines are closed."""
        ...


class BundleLoader:
    """The loader of bundles on disk.

    Args:
        options: how to load each instance of them.
        make: loads one and starts its loops.
    """

    def __init__(self, options: Sequence[LoadOptions], make: Callable[[Path, Loading, Failures], Served]) -> None:
        self._budget = MemoryBudget(options[0], options[1:])
        self._make = make

    def read(self, folder: Path) -> Bundle:
        """Return the bundle in a folder; loads no engine. Raises BundleError."""
        return Bundle(folder, read_manifest(folder), file_digest(folder / MANIFEST))

    def missing_bytes(self, bundle: Bundle) -> int:
        """Return how much others must release so that a bundle fits; 0 or less is nothing. Raises BundleError."""
        return self._budget.missing_bytes(bundle.folder)

    def refusal(self, bundle: Bundle, num_idle_bytes: int) -> OverMemoryBudget:
        """Return the error of a bundle that has no room, even in what idle ones hold."""
        return self._budget.refusal(bundle.folder, num_idle_bytes)

    def shrink(self, loading: Loading, num_bytes: int) -> Loading | None:
        """Have a loaded bundle hold so many bytes less; returns its part then, None where that cannot be."""
        return self._budget.shrink(loading, num_bytes)

    def plan(self, bundles: Sequence[Bundle]) -> Sequence[Loading]:
        """Give each bundle its part of the memory, until ``release``. Raises BundleError, OverMemoryBudget."""
        return self._budget.plan([bundle.folder for bundle in bundles])

    def load(self, bundle: Bundle, loading: Loading, failures: Failures) -> Served:
        """Load a bundle and run every engine once. Raises BundleError, DeviceNotFound, EngineFailed."""
        return self._make(bundle.folder, loading, failures)

    def release(self, loading: Loading) -> None:
        """Give the memory back of a bundle whose engines are closed."""
        self._budget.release(loading)
        give_back()
