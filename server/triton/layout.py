"""What files and models of a bundle are called in a model repository."""

from mezzotint.engines.manifest import EngineEntry
from mezzotint.engines.variants import stem

BUNDLE = "bundle"
"""The folder of a model's bundle, beside its ``model.py``."""

EMBEDDINGS = "embeddings"
"""The folder of a model's textual-inversion files, beside its ``model.py``."""

VERSION = "1"
"""The version that an exported model has."""


def component_model(name: str, entry: EngineEntry) -> str:
    """Return what the model of one engine of a bundle is called: ``NAME_unet``."""
    return f"{name}_{stem(entry.component, entry.variant)}"
