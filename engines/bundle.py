"""Opening a bundle: checks every digest and runtime version before anything is made with its engines.

Imports the manifest, prompts and backends; a bundle is never changed after it has been compiled.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from mezzotint.engines.backend import Engine, EngineOptions, GpuOptions
from mezzotint.engines.backends import check_runtime, get_backend, installed_version
from mezzotint.engines.bundle_files import check_digests, digests_of, file_digest, file_size
from mezzotint.engines.component import Component, by_component
from mezzotint.engines.cpus import available_cpus
from mezzotint.engines.curves import curve_file, curve_of, is_sure, read_rounds, with_curve
from mezzotint.engines.decode_room import whole_pixels
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import MANIFEST, EngineEntry, Manifest, read_manifest
from mezzotint.engines.memory import resident_bytes
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.prepared import Wanted, fit, max_rows, row_counts
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.shapes import CompiledShapes
from mezzotint.engines.sizes import Size, own_size, size_of_engine
from mezzotint.engines.variants import TILE, served_engines

# Beside the engines' own bytes: what the runtime's library takes once it compiles, pictures in the making, threads.
RESERVED_BYTES = 256 << 20

# Larger files are weights, which no parser reads: their digests are found while the engines are compiled.
_LARGE_BYTES = 32 << 20


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a host loads bundles.

    Attributes:
        devices: a device name by component; the empty key is every other component's.
        num_threads: CPU threads of one engine call; 0 is all that this process may keep busy.
        strict: one row a call, in one fixed shape: rows then cannot depend on their neighbours, at some cost of speed.
        cache: keep the runtime's compiled blobs in the user's cache folder.
        memory_budget: bytes that the process may take with all its bundles; None is no limit.
        gpu: what concerns other devices than the CPU.
        embeddings: textual-inversion files, and folders of them, that every bundle learns.
        tiles_above: pixels of a picture from which on it is decoded in tiles; None is where the budget has no room.
    """

    devices: Mapping[str, str]
    num_threads: int = 0
    strict: bool = False
    cache: bool = True
    memory_budget: int | None = None
    gpu: GpuOptions = field(default_factory=GpuOptions)
    embeddings: tuple[EmbeddingPath, ...] = ()
    tiles_above: int | None = None

    def device_of(self, component: Component) -> str:
        """Return the device of a component; empty is the one that it was built for."""
        return self.devices.get(component, self.devices.get("", ""))

    def loads(self, entry: EngineEntry) -> bool:
        """Whether an engine may be called: one for tiles is not where no picture is too large to be decoded whole."""
        return entry.variant != TILE or self.memory_budget is not None or self.tiles_above is not None


@dataclass(frozen=True, slots=True)
class Loading:
    """What the engines of one process are prepared for, and where they keep what they compile.

    Attributes:
        wanted: the engines of each bundle by its folder, with the row counts that fit.
        shapes: where engines keep compiled shapes, within the budget; None is a place of each engine's own.
        more: the same of each further instance, which has engines of its own.
    """

    wanted: Mapping[Path, Mapping[EngineKey, Wanted]]
    shapes: CompiledShapes | None = None
    more: tuple[Mapping[Path, Mapping[EngineKey, Wanted]], ...] = ()

    @property
    def engines(self) -> list[Wanted]:
        """All engines, of all bundles and instances."""
        return [engine for each in (self.wanted, *self.more) for own in each.values() for engine in own.values()]

    def num_bytes(self, *, packed: bool | None = None) -> int:
        """Return the predicted bytes of all engines, or of those that do or do not pack weights for each shape."""
        return sum(e.num_bytes(e.counts) for e in self.engines if packed in (None, e.packs_each_shape))

    def of_bundle(self, folder: Path) -> "Loading":
        """Return the part of one bundle."""
        return Loading({folder: self.wanted[folder]}, self.shapes, tuple({folder: each[folder]} for each in self.more))

    def of_instance(self, index: int) -> "Loading":
        """Return the part of one instance."""
        return Loading((self.wanted, *self.more)[index], self.shapes)

    def with_counts(self, counts: Sequence[tuple[int, ...]]) -> "Loading":
        """Return the same engines with other row counts, in the order of ``engines``."""
        given = iter(counts)
        each = [
            {
                folder: {key: replace(engine, counts=next(given)) for key, engine in own.items()}
                for folder, own in wanted.items()
            }
            for wanted in (self.wanted, *self.more)
        ]
        return Loading(each[0], self.shapes, tuple(each[1:]))


def parse_devices(text: str) -> dict[str, str]:
    """Read ``cpu`` or ``text_encoder=cpu,unet=gpu``; ``text`` and ``vae`` are short names. Raises BundleError."""
    try:
        return by_component(text)
    except ValueError as error:
        raise BundleError(f"device {error}") from None


def plan_loading(
    folders: Sequence[Path],
    options: LoadOptions,
    has_bytes: int | None = None,
    shapes: CompiledShapes | None = None,
    more: Sequence[LoadOptions] = (),
) -> Loading:
    """Decide the row counts of all engines of bundles that are loaded together, so that they fit the memory budget.

    Args:
        folders: the bundles.
        options: how to load them.
        has_bytes: what the process takes without them; what it takes now, by default.
        shapes: where engines keep compiled shapes; a place of these bundles' own, by default.
        more: how to load each further instance of them.

    Raises:
        BundleError: a bundle is missing or was made for another runtime.
        OverMemoryBudget: they have no room in the budget.
    """
    first, *others = ({folder: wanted_engines(folder, each) for folder in folders} for each in (options, *more))
    loading = Loading(first, more=tuple(others))
    if options.memory_budget is None:
        return loading
    has_bytes = process_bytes() if has_bytes is None else has_bytes
    fitted = loading.with_counts(fit(loading.engines, has_bytes, options.memory_budget))
    room = options.memory_budget - has_bytes - fitted.num_bytes(packed=False)
    return replace(fitted, shapes=CompiledShapes(room) if shapes is None else shapes)


def process_bytes() -> int:
    """Return what this process takes now, with what making pictures takes beside the engines."""
    return resident_bytes() + RESERVED_BYTES


def open_bundle(folder: Path, options: LoadOptions, loading: Loading | None = None) -> Model:
    """Check the bundle in ``folder`` and load its engines. Raises BundleError, DeviceNotFound.

    ``loading`` is what was planned for all bundles of this process; without it this one has the memory for itself.
    """
    with opening_bundle(folder, options, loading) as model:
        return model


@contextlib.contextmanager
def opening_bundle(folder: Path, options: LoadOptions, loading: Loading | None = None) -> Iterator[Model]:
    """Load a bundle's engines, to be warmed up inside while the digests of its large files are still being found.

    Leaving waits for them; nothing may be made of the model before. Raises what ``open_bundle`` raises.
    """
    manifest = read_manifest(folder)
    digests = digests_of(manifest)
    large = {name: sha for name, sha in digests.items() if file_size(folder / name) > _LARGE_BYTES}
    check_digests(folder, {name: sha for name, sha in digests.items() if name not in large})
    with ThreadPoolExecutor(1) as pool:
        checked = pool.submit(check_digests, folder, large)
        with contextlib.ExitStack() as unless_whole:
            try:
                model = _load_all(folder, manifest, options, loading or plan_loading([folder], options))
                unless_whole.callback(model.close)
                yield model
            finally:
                checked.result()  # a damaged file is the reason of whatever else went wrong
            unless_whole.pop_all()


def _load_all(folder: Path, manifest: Manifest, options: LoadOptions, loading: Loading) -> Model:
    digest = file_digest(folder / MANIFEST)
    wanted = loading.wanted[folder]
    prompts = Prompts(folder, manifest.text, options.embeddings)
    most = {variant: max_rows(e.entry) for (component, variant), e in wanted.items() if component is Component.UNET}
    whole = whole_pixels(manifest, wanted, loading.shapes, options.tiles_above)
    engines: dict[EngineKey, Engine] = {}
    with contextlib.ExitStack() as unless_all:
        for key, engine in wanted.items():
            engines[key] = _load(folder, engine, digest, options, loading.shapes)
            unless_all.callback(engines[key].close)
        model = Model(_as_loaded(manifest, wanted), digest, prompts, engines, most, whole)
        unless_all.pop_all()
    return model


def _as_loaded(manifest: Manifest, wanted: Mapping[EngineKey, Wanted]) -> Manifest:
    """Return the manifest with this host's own step-time curves."""
    own = {key: engine.entry for key, engine in wanted.items()}
    entries = tuple(own.get((entry.component, entry.variant), entry) for entry in manifest.engines)
    return manifest.model_copy(update={"engines": entries})


def cache_folder() -> Path:
    """Return where things live that depend on this host: ``$XDG_CACHE_HOME/mezzotint``, or ``~/.cache/mezzotint``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mezzotint"


def curve_files(digest: str, manifest: Manifest, options: LoadOptions) -> dict[EngineKey, Path]:
    """Return where this host's step-time curves of each served engine are kept."""
    threads = options.num_threads or available_cpus()
    return {
        (entry.component, entry.variant): curve_file(
            _cache_dir(digest, entry), entry, options.device_of(entry.component), threads
        )
        for entry in served_engines(manifest)
        if options.loads(entry)
    }


def served_entries(manifest: Manifest) -> tuple[EngineEntry, ...]:
    """Return the served engines of a bundle. Raises BundleError where one is missing or made for another runtime."""
    entries = served_engines(manifest)
    for entry in entries:
        check_runtime(manifest.name, entry)
    return entries


def wanted_engines(folder: Path, options: LoadOptions) -> dict[EngineKey, Wanted]:
    """Return the served engines of a bundle and the row counts that gain something on this host.

    Raises BundleError where one is missing or was made for another runtime.
    """
    manifest = read_manifest(folder)
    curves = curve_files(file_digest(folder / MANIFEST), manifest, options) if options.cache else {}
    found = {}
    for given in filter(options.loads, served_entries(manifest)):
        file = curves.get((given.component, given.variant))
        entry, counts = _as_measured(given, file, size_of_engine(given, own_size(manifest)))
        counts = (1,) if options.strict else counts
        sizes = sum(file_size(folder / name) for name in entry.files)
        packs = get_backend(entry.backend).packs_each_shape
        found[entry.component, entry.variant] = Wanted(entry, counts, sizes, packs)
    return found


def _as_measured(given: EngineEntry, file: Path | None, own: Size) -> tuple[EngineEntry, tuple[int, ...]]:
    """Return an engine with this host's curve, and its row counts: those of the given one too until that is sure."""
    rounds = {} if file is None else read_rounds(file).get(own, {})
    entry = with_curve(given, curve_of(rounds))
    counts = row_counts(entry)
    return entry, counts if is_sure(rounds) else tuple(sorted({*counts, *row_counts(given)}))


def _load(folder: Path, wanted: Wanted, digest: str, options: LoadOptions, shapes: CompiledShapes | None) -> Engine:
    entry = wanted.entry
    cache = _cache_dir(digest, entry) if options.cache else None
    device = options.device_of(entry.component)
    mine = EngineOptions(device, options.num_threads, wanted.counts, cache, shapes, wanted.shape_bytes(), options.gpu)
    return get_backend(entry.backend).load(folder, entry, mine)


def _cache_dir(digest: str, entry: EngineEntry) -> Path:
    return cache_folder() / digest[:16] / f"{entry.backend}-{installed_version(entry)}"
