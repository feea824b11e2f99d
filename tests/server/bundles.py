"""Bundles of fake engines in a model repository, and the loader that makes cores of them."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mezzotint.engines.bundle import Loading
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.component import Component
from mezzotint.engines.errors import OverMemoryBudget
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.engines.prepared import Wanted, shed
from mezzotint.server.catalog import Bundle
from mezzotint.server.config import CoreConfig
from mezzotint.server.core import Core
from mezzotint.server.health import Failures
from tests.fake_manifest import entry, fake_manifest, latents
from tests.fakes import UNET, FakeEngine, fake_model

UNIT = 100  # bytes that a bundle takes for each unit of its size


def write_bundle(
    root: Path, folder: str, *, name: str = "", sampler: str = "ddim", notes: tuple[str, ...] = ()
) -> Path:
    """Write a bundle's manifest into a repository; one of another sampler or other notes has another digest."""
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    manifest = fake_manifest(name or folder)
    schedule = manifest.schedule.model_copy(update={"default_sampler": sampler})
    manifest = manifest.model_copy(update={"schedule": schedule, "notes": notes})
    (path / MANIFEST).write_text(manifest.model_dump_json(), encoding="utf-8")
    return path


@dataclass
class FakeLoader:
    """Makes cores on fake engines.

    Attributes:
        room: bytes of the budget; None is no limit.
        sizes: units of memory by a bundle's folder; 1 where it is not named.
        counts: the row counts that each folder's bundle is prepared for; 1 where it is not named.
        unets: the UNets that were made, by bundle's folder, in their order.
        failing: folders whose engines fail in every call after those that warm them up.
        gate: what every load waits for.
    """

    room: int | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    counts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    unets: dict[str, list[FakeEngine]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    gate: threading.Event = field(default_factory=threading.Event)
    held: list[Loading] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.set()

    def read(self, folder: Path) -> Bundle:
        return Bundle(folder, read_manifest(folder), file_digest(folder / MANIFEST))

    def missing_bytes(self, bundle: Bundle) -> int:
        held = sum(loading.num_bytes() for loading in self.held)
        return 0 if self.room is None else held + self._bytes(bundle) - self.room

    def refusal(self, bundle: Bundle, num_idle_bytes: int) -> OverMemoryBudget:
        return OverMemoryBudget(f"{bundle.folder.name} needs {self._bytes(bundle)}, idle ones hold {num_idle_bytes}")

    def shrink(self, loading: Loading, num_bytes: int) -> Loading | None:
        counts = shed(loading.engines, num_bytes)
        if counts is None:
            return None
        smaller = loading.with_counts(counts)
        with self.lock:
            self.held = [smaller if held is loading else held for held in self.held]
        return smaller

    def plan(self, bundles: Sequence[Bundle]) -> Sequence[Loading]:
        loadings = [self._loading(bundle) for bundle in bundles]
        with self.lock:  # threads plan and release beside each other
            self.held = [*self.held, *loadings]
        return loadings

    def load(self, bundle: Bundle, loading: Loading, failures: Failures) -> Core:
        assert self.gate.wait(20)
        model, engines = fake_model(bundle.folder, bundle=(bundle.manifest, bundle.digest))
        model.warm_up()
        unet = engines[UNET]
        while unet.entered.acquire(blocking=False):
            pass
        unet.failures = 10**6 if bundle.folder.name in self.failing else 0
        self.unets.setdefault(bundle.folder.name, []).append(unet)
        return Core(model, CoreConfig(), on_result=failures.note)

    def release(self, loading: Loading) -> None:
        with self.lock:
            self.held = [held for held in self.held if held is not loading]

    def _bytes(self, bundle: Bundle) -> int:
        return self._loading(bundle).num_bytes()

    def _loading(self, bundle: Bundle) -> Loading:
        num_bytes = 64 * self.sizes.get(bundle.folder.name, 1)  # of files; in memory it is UNIT for each 64
        counts = self.counts.get(bundle.folder.name, (1,))
        unet = entry(Component.UNET, "full", (latents("sample"),), latents("output"))
        return Loading({bundle.folder: {UNET: Wanted(unet, counts, num_bytes, packs_each_shape=True)}})
