"""Measuring a bundle's engines on this host: step-time curves, and whether two loops of half the cores do more.

Each engine is loaded alone and for one row count at a time, so that a bundle that fits a server fits here.
"""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import LoadOptions, check_files, curve_files, file_digest, served_entries
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.curves import measure_rows, with_curve, write_curve
from mezzotint.engines.manifest import MANIFEST, Component, EngineEntry, read_manifest
from mezzotint.engines.model import EngineKey
from mezzotint.engines.prepared import max_rows, possible_counts
from mezzotint.engines.timing import distinct_rows
from mezzotint.engines.variants import FULL, title

_CALLS_AT_LEAST = 3
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured of a bundle on this host.

    Attributes:
        entries: each served engine with this host's ``step_ms``.
        rows_a_second: of UNet calls at the most rows that gain something, by the number of loops that share the cores.
    """

    entries: dict[EngineKey, EngineEntry]
    rows_a_second: dict[int, float]


def tune(folder: Path, options: LoadOptions, report: Callable[[str], None] = lambda _: None) -> Tuned:
    """Measure the bundle in ``folder`` and keep its curves in the user's cache, for ``options`` of the same threads.

    Args:
        folder: the bundle.
        options: devices and threads as it will be served with.
        report: hears what is measured next.

    Raises:
        BundleError: the bundle is missing, damaged, or made for another runtime.
        DeviceNotFound: a device is not on this machine.
        EngineFailed: a call failed.
    """
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    files = curve_files(file_digest(folder / MANIFEST), manifest, options)
    entries: dict[EngineKey, EngineEntry] = {}
    for entry in served_entries(manifest):
        key = (entry.component, entry.variant)
        curve = {}
        for count in possible_counts(entry):
            report(f"{title(*key)}, {count} rows")
            with closing(_load(folder, entry, options, count)) as engine:
                curve[count] = measure_rows(engine, count)
        write_curve(files[key], curve)
        entries[key] = with_curve(entry, curve)
    return Tuned(entries, _loops(folder, entries[Component.UNET, FULL], options, report))


def _loops(folder: Path, unet: EngineEntry, options: LoadOptions, report: Callable[[str], None]) -> dict[int, float]:
    threads = options.num_threads or available_cpus()
    rows = max_rows(unet)
    found = {}
    for loops in (1, 2) if threads > 1 else (1,):
        report(f"{loops} x {threads // loops} threads")
        each = replace(options, num_threads=threads // loops)
        with ExitStack() as stack:
            engines = [stack.enter_context(closing(_load(folder, unet, each, rows))) for _ in range(loops)]
            found[loops] = _rows_a_second(engines, rows)
    return found


def _rows_a_second(engines: list[Engine], rows: int) -> float:
    """Return the rows a second of engines that all run at the same time, each in a thread of its own."""
    inputs = distinct_rows(engines[0].spec, rows)
    for engine in engines:
        engine.run(inputs)
    calls = [0] * len(engines)
    begun = time.perf_counter()

    def run(i: int) -> None:
        while calls[i] < _CALLS_AT_LEAST or time.perf_counter() - begun < _SECONDS:
            engines[i].run(inputs)
            calls[i] += 1

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows * sum(calls) / (time.perf_counter() - begun)


def _load(folder: Path, entry: EngineEntry, options: LoadOptions, count: int) -> Engine:
    wanted = EngineOptions(
        device=options.device_of(entry.component), num_threads=options.num_threads, row_counts=(count,)
    )
    return get_backend(entry.backend).load(folder, entry, wanted)
