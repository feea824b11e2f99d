"""What is compared: a bundle under a name, with request settings, or with single engines exchanged for others."""

import ast
import dataclasses
import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.quality.paint import STORE
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.component import Component, Precision
from mezzotint.engines.errors import BundleError, InvalidRequest
from mezzotint.engines.manifest import MANIFEST, read_manifest
from mezzotint.engines.request import Request

_FIXED = {"prompt", "seed", "num_images"}  # a case says these
_NEXT_OPTION = re.compile(r",(?=[\w/]+=)")  # a value may hold commas: cache_schedule=(0,5,10)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One bundle as it is asked: ``settings`` are fields of Request, ``noise`` is added to the initial one."""

    name: str
    bundle: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    noise: float = 0.0


def read_candidate(text: str, store: Path = STORE) -> Candidate:
    """Read ``NAME=FOLDER[,FIELD=VALUE][,COMPONENT[/VARIANT]=[PRECISION:]ENGINE_FILE]…``.

    A bundle with another engine is put into ``store``. Raises InvalidRequest, BundleError.
    """
    first, *rest = _NEXT_OPTION.split(text)
    name, separator, folder = first.partition("=")
    if not separator or not name or not folder:
        raise InvalidRequest(f"bundle {text!r}: must be NAME=FOLDER, with request fields after commas")
    bundle, settings, noise = Path(folder), {}, 0.0
    for option in rest:
        key, _, value = option.partition("=")
        component, _, variant = key.partition("/")
        if component in set(Component):
            precision, _, file = value.rpartition(":")
            bundle = with_engine(bundle, Component(component), Path(file), variant or "full", precision, store)
        elif key == "noise":
            noise = _read_noise(value)
        else:
            settings[key] = read_setting(key, value)
    return Candidate(name, bundle, settings, noise)


def _read_noise(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"noise={text}: must be a number, such as 1e-3") from None


def request_defaults() -> dict[str, Any]:
    """Return the fields of a request that may be set, which are no arrays, and what they are when unsaid."""
    plain = (f for f in dataclasses.fields(Request) if isinstance(f.default, str | int | float | tuple))
    return {f.name: f.default for f in plain if f.name not in _FIXED}


def read_setting(key: str, text: str) -> Any:
    """Read a request field's value by the type of its default. Raises InvalidRequest."""
    defaults = request_defaults()
    if key not in defaults:
        raise InvalidRequest(f"{key}={text}: no field that a candidate may set; use {', '.join(defaults)}")
    default = defaults[key]
    try:
        return type(default)(ast.literal_eval(text)) if isinstance(default, tuple | bool) else type(default)(text)
    except (ValueError, SyntaxError, TypeError):
        raise InvalidRequest(f"{key}={text}: must be a {type(default).__name__}, such as {default!r}") from None


def with_engine(
    bundle: Path, component: Component, file: Path, variant: str = "full", precision: str = "", store: Path = STORE
) -> Path:
    """Return a bundle that is ``bundle`` with one engine exchanged; its files are links, so nothing is copied.

    Args:
        bundle: the bundle's folder.
        component: what the engine is.
        file: the engine; whatever shares its folder and stem comes along (``x.xml`` and ``x.bin``). Inputs, outputs and
            runtime must be those of the engine that it replaces.
        variant: which of the component's engines.
        precision: what the new engine is to compute in; empty is as before.
        store: where the new bundle is put.

    Raises:
        BundleError: there is no such engine or file.
    """
    manifest = read_manifest(bundle)
    old = manifest.engine(component, variant)
    if not file.is_file():
        raise BundleError(f"{file}: no engine file there; name the .xml or .onnx file")
    found = [file, *sorted(other for other in file.parent.glob(f"{file.stem}.*") if other != file)]
    folder = f"exchanged-{component}-{variant}"
    files = {f"{folder}/{path.name}": file_digest(path) for path in found}
    new = old.model_copy(update={"files": files, "precision": Precision(precision or old.precision)})
    engines = tuple(new if entry == old else entry for entry in manifest.engines)
    text = manifest.model_copy(update={"engines": engines}).model_dump_json(indent=1)
    target = store / "bundles" / hashlib.sha256(text.encode()).hexdigest()[:24]
    if not (target / MANIFEST).is_file():
        shutil.rmtree(target, ignore_errors=True)
        (target / folder).mkdir(parents=True)
        kept = {name for entry in engines for name in entry.files} | set(manifest.text.files)
        for name in kept - set(files):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).symlink_to((bundle / name).resolve())
        for path in found:
            (target / folder / path.name).symlink_to(path.resolve())
        (target / MANIFEST).write_text(text, encoding="utf-8")
    return target
