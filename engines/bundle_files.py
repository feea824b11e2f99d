"""The files of a bundle: their digests and sizes, and what is said where one is damaged or gone."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import EngineEntry, Manifest


def check_files(folder: Path, manifest: Manifest) -> None:
    """Compare every file of the bundle with the manifest's digest. Raises BundleError."""
    check_digests(folder, digests_of(manifest))


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex. Raises BundleError where it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); compile the bundle again") from None


def digests_of(manifest: Manifest) -> dict[str, str]:
    """Return the SHA-256 of each of a bundle's files by name."""
    return {name: sha for entry in manifest.engines for name, sha in entry.files.items()} | manifest.text.files


def check_digests(folder: Path, digests: Mapping[str, str]) -> None:
    """Compare files of a bundle with their SHA-256, by name. Raises BundleError."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(file_digest, (folder / name for name in digests))
        for (name, expected), actual in zip(digests.items(), found, strict=True):
            if actual != expected:
                raise BundleError(
                    f"{folder / name}: sha256 is {actual[:12]}…, the manifest says {expected[:12]}…; "
                    "the file was changed or damaged, compile the bundle again"
                )


def engine_file(folder: Path, spec: EngineEntry) -> Path:
    """Return the file that an engine is loaded from. Raises BundleError where it is not there."""
    path = folder / next(iter(spec.files))
    if not path.is_file():
        raise BundleError(f"{path}: engine file is missing; compile the bundle again")
    return path


def file_size(path: Path) -> int:
    """Return a file's bytes. Raises BundleError where it cannot be read."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror}); compile the bundle again") from None
