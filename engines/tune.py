"""Measuring a bundle's engines on this host: step-time curves, and whether two loops of half the cores do more.

Each engine is loaded alone and for one row count at a time, so that a bundle that fits a server fits here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.bundle import LoadOptions, curve_files, served_entries
from mezzotint.engines.bundle_files import check_files, file_digest
from mezzotint.engines.component import Component
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.curves import add_rounds, curve_of, measure_rounds
from mezzotint.engines.manifest import MANIFEST, EngineEntry, Manifest, read_manifest
from mezzotint.engines.model import EngineKey
from mezzotint.engines.prepared import max_rows, possible_counts
from mezzotint.engines.request import Request, check_request, size_of
from mezzotint.engines.rows import Curve
from mezzotint.engines.sizes import Size, axis_lengths, own_size, size_of_engine
from mezzotint.engines.timing import Inputs, call_ms, distinct_rows
from mezzotint.engines.variants import FULL, title

_CALLS_AT_LEAST = 3
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was measured of a bundle on this host.

    Attributes:
        entries: each served engine.
        curves: this host's curves of each, by size.
        rows_a_second: of UNet calls at the most rows that gain something, by the number of loops that share the cores.
    """

    entries: dict[EngineKey, EngineEntry]
    curves: dict[EngineKey, dict[Size, Curve]]
    rows_a_second: dict[int, float]


def tune(
    folder: Path,
    options: LoadOptions,
    report: Callable[[str], None] = lambda _: None,
    pixels: Sequence[tuple[int, int]] = (),
) -> Tuned:
    """Measure the bundle in ``folder`` and keep its curves in the user's cache, for ``options`` of the same threads.

    Args:
        folder: the bundle.
        options: devices and threads as it will be served with.
        report: hears what is measured next.
        pixels: widths and heights of the pictures to measure for; the bundle's own where there are none.

    Raises:
        BundleError: the bundle is missing, damaged, or made for another runtime.
        InvalidRequest: no picture can have such a size.
        ShapeNotCompiled: the bundle was not built for one.
        DeviceNotFound: a device is not on this machine.
        EngineFailed: a call failed.
    """
    manifest = read_manifest(folder)
    sizes = [_size_of(manifest, *each) for each in pixels] or [own_size(manifest)]
    check_files(folder, manifest)
    files = curve_files(file_digest(folder / MANIFEST), manifest, options)
    entries: dict[EngineKey, EngineEntry] = {}
    curves: dict[EngineKey, dict[Size, Curve]] = {}
    for entry in filter(options.loads, served_entries(manifest)):
        key = (entry.component, entry.variant)
        entries[key], curves[key] = entry, {}
        for size in dict.fromkeys(size_of_engine(entry, size) for size in sizes):
            lengths = axis_lengths(entry, size, own_size(manifest))
            rounds = {}
            for count in possible_counts(entry):
                report(f"{title(*key)}, {count} rows{_at(size, manifest)}")
                with closing(_load(folder, entry, options, count)) as engine:
                    rounds[count] = measure_rounds(engine, count, lengths)
            add_rounds(files[key], size, rounds)
            curves[key][size] = curve_of(rounds)
    unet, (size, curve) = entries[Component.UNET, FULL], next(iter(curves[Component.UNET, FULL].items()))
    lengths = axis_lengths(unet, size, own_size(manifest))
    return Tuned(entries, curves, _loops(folder, unet, options, max_rows(unet, curve), lengths, report))


def pixels_text(size: Size, manifest: Manifest) -> str:
    """Return the width and height of a size's pictures; empty of an engine that has neither."""
    factor = manifest.latents.factor
    return f"{size.width * factor}x{size.height * factor}" if size.height else ""


def _at(size: Size, manifest: Manifest) -> str:
    is_other = size[:2] != own_size(manifest)[:2] and size.height
    return f" at {pixels_text(size, manifest)}" if is_other else ""


def _size_of(manifest: Manifest, width: int, height: int) -> Size:
    request, factor = Request(width=width, height=height), manifest.latents.factor
    check_request(request, manifest)
    height, width = size_of(request, manifest)
    return own_size(manifest)._replace(height=height // factor, width=width // factor)


def _loops(
    folder: Path,
    unet: EngineEntry,
    options: LoadOptions,
    rows: int,
    lengths: Mapping[str, int],
    report: Callable[[str], None],
) -> dict[int, float]:
    threads = options.num_threads or available_cpus()
    inputs = distinct_rows(unet, rows, lengths)
    found = {}
    for loops in (1, 2) if threads > 1 else (1,):
        report(f"{loops} x {threads // loops} threads")
        each = replace(options, num_threads=threads // loops)
        with ExitStack() as stack:
            engines = [stack.enter_context(closing(_load(folder, unet, each, rows))) for _ in range(loops)]
            found[loops] = rows * _calls_a_second(engines, inputs)
    return found


def _calls_a_second(engines: list[Engine], inputs: Inputs) -> float:
    """Return the calls a second of engines that all run at one time, each in its own thread. Raises EngineFailed."""
    for engine in engines:
        engine.run(inputs)
    calls = [0] * len(engines)
    begun = time.perf_counter()

    def run(i: int) -> None:
        while calls[i] < _CALLS_AT_LEAST or time.perf_counter() - begun < _SECONDS:
            call_ms(engines[i], inputs)
            calls[i] += 1

    with ThreadPoolExecutor(len(engines)) as pool:
        for done in [pool.submit(run, i) for i in range(len(engines))]:
            done.result()
    return sum(calls) / (time.perf_counter() - begun)


def _load(folder: Path, entry: EngineEntry, options: LoadOptions, count: int) -> Engine:
    wanted = EngineOptions(
        device=options.device_of(entry.component), num_threads=options.num_threads, row_counts=(count,)
    )
    return get_backend(entry.backend).load(folder, entry, wanted)
