"""Compiled OpenVINO models kept on the host's disk, so that a later start skips reading and transforming the graph.

A blob holds the transformed graph alone and takes the weights from the engine's own file, which the manifest's digest
vouches for. Its name is the digest of everything that it depends on; what is damaged is compiled again.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov

from mezzotint.engines.errors import last_line
from mezzotint.engines.shapes import Shapes

logger = logging.getLogger(__name__)

_DIGEST_BYTES = hashlib.sha256().digest_size


class Blobs:
    """The blobs of one engine on one device.

    Args:
        folder: where they are kept; it is made when there is one to keep.
        core: what reads them.
        device: OpenVINO's name of it.
        config: what the models are compiled with.
        engine: the file that the models are compiled from.
        files: the digests of all files of the engine by name.
    """

    def __init__(
        self,
        folder: Path,
        core: ov.Core,
        device: str,
        config: Mapping[str, Any],
        engine: Path,
        files: Mapping[str, str],
    ) -> None:
        self._folder = folder
        self._core = core
        self._device = device
        weights = engine.with_suffix(".bin")
        outside = engine.suffix == ".xml" and weights.is_file()
        self.config = {**config, "CACHE_MODE": "OPTIMIZE_SIZE"} if outside else dict(config)
        """What a model must be compiled with so that its blob holds no weights that its engine's file holds."""
        self._import_config = {**self.config, "WEIGHTS_PATH": str(weights)} if outside else self.config
        self._depends_on = {
            "openvino": ov.__version__,
            "device": [device, *_device_facts(core, device)],
            "cpu": _cpu_features(),
            "config": {name: str(value) for name, value in config.items()},
            "files": dict(files),
        }

    def load(self, shapes: Shapes) -> ov.CompiledModel | None:
        """Return the model that was kept for these input shapes; None where there is none that is whole."""
        path = self._path(shapes)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, blob = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(blob).digest() != digest:
            logger.warning("%s: is damaged; it is compiled again", path)
            return None
        try:
            return self._core.import_model(io.BytesIO(blob), self._device, self._import_config)
        except RuntimeError as error:
            logger.warning("%s: cannot be used (%s); it is compiled again", path, last_line(error))
            return None

    def save(self, shapes: Shapes, compiled: ov.CompiledModel) -> None:
        """Keep a compiled model, all of it or nothing; a disk that takes none is noted in the log."""
        path = self._path(shapes)
        try:
            blob = compiled.export_model().getvalue()
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".unfinished-", delete=False) as file:
                try:
                    file.write(hashlib.sha256(blob).digest() + blob)
                    file.close()
                    os.replace(file.name, path)
                except OSError:
                    with contextlib.suppress(OSError):
                        os.unlink(file.name)
                    raise
        except (OSError, RuntimeError) as error:
            logger.warning("%s: cannot be written (%s); the next start compiles again", path, last_line(error))

    def _path(self, shapes: Shapes) -> Path:
        name = json.dumps(self._depends_on | {"shapes": shapes}, sort_keys=True)
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.blob"


def _device_facts(core: ov.Core, device: str) -> list[str]:
    return [str(core.get_property(device, name)) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]


def _cpu_features() -> str:
    """Return the instruction sets of this CPU as the system lists them, or its name where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
