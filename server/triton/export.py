"""Writes a bundle as a Triton model repository: the model that streams, its twin of one response, and components."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from mezzotint.engines.bundle_files import check_files
from mezzotint.engines.component import Component
from mezzotint.engines.embedding_file import EmbeddingPath, embedding_files
from mezzotint.engines.errors import BundleError, EmbeddingError
from mezzotint.engines.manifest import MANIFEST, EngineEntry, Manifest, read_manifest
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.remote import INSIDE, PROTOCOL, RemoteModel
from mezzotint.engines.variants import served_engines, stem
from mezzotint.server.kserve.tensors import STREAM
from mezzotint.server.triton.layout import BUNDLE, EMBEDDINGS, VERSION, component_model
from mezzotint.server.triton.model_config import component_config, generation_config
from mezzotint.server.triton.settings import Settings

_MODEL = '''"""{about} Needs `mezzotint[serve]` in the Python that Triton runs."""

from mezzotint.server.triton.{module} import {name} as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''


class Components(StrEnum):
    """What runs a bundle's engines in Triton."""

    INSIDE = "inside"
    PYTHON = "python"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How a bundle is written.

    Attributes:
        settings: what its models are told of their own settings.
        components: ``inside``, the streaming model itself runs the engines; ``python``, a model for each that runs it
            by our backends; ``native``, a model for each that Triton's own backends run.
        link: whether the models' folders lead to the bundle's files and do not hold copies.
        call_seconds: how long a call of a component may take.
        embeddings: textual-inversion files, and folders of them, which are copied or linked as the bundle is.
    """

    settings: Settings = field(default_factory=Settings)
    components: Components = Components.INSIDE
    link: bool = False
    call_seconds: float = 60.0
    embeddings: tuple[EmbeddingPath, ...] = ()


def export(bundle: Path, repository: Path, options: ExportOptions) -> tuple[str, ...]:
    """Write the models of a bundle into a model repository and return their names; all of them or none.

    Raises:
        BundleError: the bundle is missing or damaged, Triton has no backend for an engine, or a model is there already.
        EmbeddingError: a textual-inversion file does not fit the bundle, or two of them have one name.
    """
    manifest = read_manifest(bundle)
    check_files(bundle, manifest)
    Prompts(bundle, manifest.text, options.embeddings)
    repository.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=repository.absolute().parent) as work:
        models = Writer(bundle.absolute(), manifest, Path(work), options).write()
        for name in models:
            if (repository / name).exists():
                raise BundleError(f"{repository / name}: is there already; remove it, or name another repository")
        for name in models:
            os.replace(Path(work) / name, repository / name)
    return models


def write_remote_bundle(bundle: Path, output: Path, url: str, options: ExportOptions) -> None:
    """Write a bundle for a server of ours that has its components run by a Triton server elsewhere.

    Args:
        bundle: the bundle that the components were exported from.
        output: the folder to write.
        url: where that Triton's gRPC port is, unless ``--device`` says so.
        options: those of the export.

    Raises:
        BundleError: the bundle is missing, or there is something in the folder.
    """
    if output.exists():
        raise BundleError(f"{output}: is there already; remove it, or name another folder")
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output.absolute().parent) as work:
        remote_bundle(bundle, read_manifest(bundle), Path(work) / BUNDLE, url, options)
        os.replace(Path(work) / BUNDLE, output)


def remote_bundle(bundle: Path, manifest: Manifest, output: Path, device: str, options: ExportOptions) -> None:
    """Write a bundle whose engines are models of Triton; its manifest comes last."""
    output.mkdir(parents=True)
    _place(bundle, output, manifest.text.files, options.link)
    entries = []
    for entry in served_engines(manifest):
        remote = RemoteModel(
            model=component_model(manifest.name, entry),
            sha256=next(iter(entry.files.values())),
            timeout_seconds=options.call_seconds,
        )
        name = f"{stem(entry.component, entry.variant)}.json"
        text = remote.model_dump_json()
        (output / name).write_text(text, encoding="utf-8")
        changed = {
            "backend": "triton",
            "backend_version": PROTOCOL,
            "flavour": "",
            "device": device,
            "files": {name: hashlib.sha256(text.encode()).hexdigest()},
            "resident_bytes": {},
        }
        entries.append(entry.model_copy(update=changed))
    _write_manifest(output, manifest.model_copy(update={"engines": tuple(entries)}))


class Writer:
    """Writes the models of one bundle into an empty folder."""

    def __init__(self, bundle: Path, manifest: Manifest, work: Path, options: ExportOptions) -> None:
        self._bundle = bundle
        self._manifest = manifest
        self._work = work
        self._options = options

    def write(self) -> tuple[str, ...]:
        """Write all of them and return their names, those that others call first."""
        name, options = self._manifest.name, self._options
        settings, models = options.settings, []
        if options.components is not Components.INSIDE:
            settings = replace(settings, device="")  # of the components, each of which has it
            models = [self._component(entry) for entry in served_engines(self._manifest)]
        stream = self._work / f"{name}{STREAM}"
        settings = replace(settings, embedding=self._embeddings(stream / VERSION))
        config = generation_config(stream.name, decoupled=True, parameters=settings.parameters())
        version = self._model(stream, config, ("stream", "StreamModel", "Steps, then pictures."))
        if options.components is Components.INSIDE:
            self._all_files(version / BUNDLE)
        else:
            remote_bundle(self._bundle, self._manifest, version / BUNDLE, INSIDE, options)
        config = generation_config(name, decoupled=False, parameters={})
        self._model(self._work / name, config, ("whole", "WholeModel", "All pictures at once."))
        return (*models, stream.name, name)

    def _component(self, entry: EngineEntry) -> str:
        native = self._options.components is Components.NATIVE
        name = component_model(self._manifest.name, entry)
        settings = self._options.settings
        parameters = {
            "component": str(entry.component),
            "variant": entry.variant,
            "device": settings.load.device_of(entry.component),
            "num_threads": str(settings.num_threads),
        }
        config = component_config(name, entry, native=native, parameters=parameters)
        about = ("component", "ComponentModel", f"The engine {stem(entry.component, entry.variant)}.")
        version = self._model(self._work / name, config, None if native else about)
        if native:
            _place(self._bundle, version, entry.files, self._options.link)
        else:
            _place(self._bundle, version / BUNDLE, entry.files, self._options.link)
            _write_manifest(version / BUNDLE, alone(self._manifest, entry))
        return name

    def _model(self, folder: Path, config: str, python: tuple[str, str, str] | None) -> Path:
        version = folder / VERSION
        version.mkdir(parents=True, exist_ok=True)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        if python is not None:
            module, name, about = python
            (version / "model.py").write_text(_MODEL.format(module=module, name=name, about=about), encoding="utf-8")
        return version

    def _embeddings(self, version: Path) -> str:
        """Write the textual-inversion files beside a model's code, and return what its parameter says of them."""
        said: list[str] = []
        for given in self._options.embeddings:
            path, target = given.path.absolute(), f"{EMBEDDINGS}/{given.path.absolute().name}"
            if (version / target).exists() or "," in target:
                raise EmbeddingError(f"embedding {path}: is the second of its name, or has a comma in it; rename it")
            names = [str(file.path.absolute().relative_to(path.parent)) for file in embedding_files(given)]
            _place(path.parent, version / EMBEDDINGS, names, self._options.link)
            said.append(f"{given.name}={target}")
        return ",".join(said)

    def _all_files(self, output: Path) -> None:
        if self._options.link:
            output.symlink_to(self._bundle, target_is_directory=True)
            return
        engines = (name for entry in self._manifest.engines for name in entry.files)
        _place(self._bundle, output, [*engines, *self._manifest.text.files, MANIFEST], link=False)


def alone(manifest: Manifest, entry: EngineEntry) -> Manifest:
    """Return the manifest of a folder that holds one engine of a bundle and nothing else."""
    text = manifest.text.model_copy(update={"files": {}})
    safety = manifest.safety if entry.component is Component.SAFETY_CHECKER else None
    return manifest.model_copy(update={"engines": (entry,), "text": text, "safety": safety})


def _place(bundle: Path, output: Path, names: Iterable[str] | Mapping[str, str], link: bool) -> None:
    for name in names:
        target = output / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            target.symlink_to((bundle / name).resolve())
        else:
            shutil.copyfile(bundle / name, target)


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    text = json.dumps(manifest.model_dump(mode="json"), indent=2)
    (folder / MANIFEST).write_text(text, encoding="utf-8")
