"""Opening a bundle: checks every digest and runtime version before any engine is loaded.

Imports the manifest, prompts and backends; a bundle is never changed after it has been compiled.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mezzotint.engines.backend import Engine, EngineOptions
from mezzotint.engines.backends import get_backend
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import MANIFEST, Component, EngineEntry, Manifest, read_manifest
from mezzotint.engines.model import Model
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.rows import knee
from mezzotint.engines.variants import served_engines

_CHUNK_BYTES = 1 << 20
# A guided prompt is two rows, and pictures are decoded one by one; more is split, which costs nothing on a CPU.
_MAX_PREPARED = {Component.TEXT_ENCODER: 2, Component.VAE_DECODER: 1}


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a host loads bundles.

    Attributes:
        devices: a device name by component; the empty key is every other component's.
        num_threads: CPU threads of one engine call; 0 is all cores.
        strict: one row a call, in one fixed shape: rows then cannot depend on their neighbours, at some cost of speed.
        cache: keep the runtime's compiled blobs in the user's cache folder.
    """

    devices: Mapping[str, str]
    num_threads: int = 0
    strict: bool = False
    cache: bool = True


def parse_devices(text: str) -> dict[str, str]:
    """Read ``cpu`` or ``text_encoder=cpu,unet=gpu``; ``text`` and ``vae`` are short names. Raises BundleError."""
    short = {"text": Component.TEXT_ENCODER, "vae": Component.VAE_DECODER}
    devices: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        component, _, name = part.rpartition("=")
        component = short.get(component, component)
        if component and component not in set(Component):
            raise BundleError(f"device {part!r}: {component!r} is no component; use {', '.join([*short, *Component])}")
        devices[component] = name
    return devices


def open_bundle(folder: Path, options: LoadOptions) -> Model:
    """Check the bundle in ``folder`` and load its engines. Raises BundleError, DeviceNotFound."""
    manifest = read_manifest(folder)
    check_files(folder, manifest)
    digest = file_digest(folder / MANIFEST)
    entries = served_engines(manifest)
    for entry in entries:
        _check_runtime(manifest, entry)
    engines = {(entry.component, entry.variant): _load(folder, entry, digest, options) for entry in entries}
    max_rows = {entry.variant: _max_rows(entry) for entry in entries if entry.component is Component.UNET}
    return Model(manifest, digest, Prompts(folder, manifest.text), engines, max_rows)


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file of the bundle with the manifest's digest. Raises BundleError."""
    files = {name: sha for entry in manifest.engines for name, sha in entry.files.items()} | manifest.text.files
    with ThreadPoolExecutor() as pool:
        for (name, expected), found in zip(
            files.items(), pool.map(file_digest, (folder / n for n in files)), strict=True
        ):
            if found != expected:
                raise BundleError(
                    f"{folder / name}: sha256 is {found[:12]}…, the manifest says {expected[:12]}…; "
                    "the file was changed or damaged, compile the bundle again"
                )


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises BundleError where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); compile the bundle again") from None


def cache_folder() -> Path:
    """Return where things live that depend on this host: ``$XDG_CACHE_HOME/mezzotint``, or ``~/.cache/mezzotint``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mezzotint"


def row_counts(entry: EngineEntry) -> tuple[int, ...]:
    """Return the row counts to prepare an engine for: the largest class that agrees bit for bit, up to the knee."""
    most = knee(entry.step_ms) if entry.step_ms else entry.axes["rows"].max
    best = max(entry.row_classes, key=len)
    most = min(most, _MAX_PREPARED.get(entry.component, most))
    return tuple(count for count in best if count <= most) or best[:1]


def _max_rows(entry: EngineEntry) -> int:
    # guidance takes two rows of one call, even where only single rows are prepared and the engine splits it
    return min(entry.axes["rows"].max, max(2, *row_counts(entry)))


def _load(folder: Path, entry: EngineEntry, digest: str, options: LoadOptions) -> Engine:
    backend = get_backend(entry.backend)
    device = options.devices.get(entry.component, options.devices.get("", ""))
    cache = cache_folder() / digest[:16] / f"{entry.backend}-{backend.version()}" if options.cache else None
    counts = (1,) if options.strict else row_counts(entry)
    return backend.load(folder, entry, EngineOptions(device, options.num_threads, counts, cache))


def _check_runtime(manifest: Manifest, entry: EngineEntry) -> None:
    installed = get_backend(entry.backend).version()
    if installed != entry.backend_version:
        raise BundleError(
            f"bundle {manifest.name}: {entry.component} was built for {entry.backend} {entry.backend_version}, but "
            f"{installed} is installed; install that version or compile the bundle again"
        )
