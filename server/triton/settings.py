"""What a model's ``parameters`` in ``config.pbtxt`` say of how its bundle is loaded and served. Knows no Triton."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from mezzotint.engines.bundle import LoadOptions, parse_devices
from mezzotint.engines.embedding_file import EmbeddingPath, parse_embedding_path
from mezzotint.engines.errors import MezzotintError
from mezzotint.server.config import CoreConfig
from mezzotint.server.flagged import OnFlagged
from mezzotint.server.policy import DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of ``mezzotint serve`` that a model of Triton has, under the same names.

    Attributes:
        device: where to run, for all or by component.
        num_threads: CPU threads of one engine call; 0 is all that the process may keep busy.
        max_queue_size: pictures that may wait; more are refused.
        max_started_images: pictures in the making at one time.
        policy: who goes first.
        on_flagged: what becomes of pictures that a safety checker flags.
        embedding: textual-inversion files, and folders of them, with commas between; beside ``model.py`` where a path
            has no root.
    """

    device: str = ""
    num_threads: int = 0
    max_queue_size: int = 256
    max_started_images: int = 64
    policy: str = DEFAULT_POLICY
    on_flagged: str = OnFlagged.MARK
    embedding: str = ""

    @property
    def load(self) -> LoadOptions:
        """How to load the bundle, but for its ``embeddings``. Raises BundleError."""
        return LoadOptions(parse_devices(self.device), self.num_threads)

    def embeddings(self, folder: Path) -> tuple[EmbeddingPath, ...]:
        """Return the files and folders of ``embedding``; ``folder`` is where ``model.py`` lies."""
        given = map(parse_embedding_path, filter(None, (text.strip() for text in self.embedding.split(","))))
        return tuple(replace(each, path=folder / each.path) for each in given)

    @property
    def core(self) -> CoreConfig:
        """The limits of its core. Raises MezzotintError."""
        if self.on_flagged not in set(OnFlagged):
            raise MezzotintError(f"on_flagged={self.on_flagged!r}: must be one of {', '.join(OnFlagged)}")
        return CoreConfig(
            self.max_queue_size, self.max_started_images, self.policy, on_flagged=OnFlagged(self.on_flagged)
        )

    def parameters(self) -> dict[str, str]:
        """Return them as the parameters of a model."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}


_FIELDS = {field.name: field.type for field in fields(Settings)}


def read_settings(parameters: Mapping[str, str]) -> Settings:
    """Return what the parameters of a model say; those in capitals are Triton's own. Raises MezzotintError."""
    values: dict[str, Any] = {}
    for name, text in parameters.items():
        if name.isupper():
            continue
        if name not in _FIELDS:
            raise MezzotintError(f"parameter {name!r}: is none of a model's; it has {', '.join(_FIELDS)}")
        is_number = _FIELDS[name] is int
        if is_number and not text.isdecimal():
            raise MezzotintError(f"parameter {name}={text!r}: must be a whole number of 0 or more")
        values[name] = int(text) if is_number else text
    return Settings(**values)
