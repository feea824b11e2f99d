"""The variants that a component may be compiled in, and which of them a bundle has. Imports the manifest alone.

The UNet's ``full`` engine may have a ``shallow`` one beside it: its outer branch alone, on the feature that the full
one left (DeepCache, Ma et al. 2023, arXiv 2312.00858). The VAE decoder is ``full``, or cut into ``part1``, ``part2``
and so on, each of which takes what the one before it gives; beside that there may be a ``tiny`` one, and a ``tile``
one, which is the whole decoder for parts of pictures that are too large for it (``tiles.py``).
"""

import itertools

from mezzotint.engines.component import Component
from mezzotint.engines.manifest import EngineEntry, Manifest

FULL = "full"
SHALLOW = "shallow"
TINY = "tiny"
TILE = "tile"
CHECK = "check"
"""What a decoded picture waits for where the bundle has a safety checker."""
PICTURE = "picture"
"""What an image waits for, once its prompt is encoded, that begins with a picture: the VAE's encoder."""

DECODERS = (FULL, TINY)
"""The decoders that a request may name; the empty name is the first."""


def stem(component: str, variant: str) -> str:
    """Return what an engine's files and stages are called: ``unet``, ``unet_shallow``."""
    return str(component) if variant == FULL else f"{component}_{variant}"


def title(component: str, variant: str) -> str:
    """Return what people read of an engine: ``unet``, ``unet (shallow)``."""
    return str(component) if variant == FULL else f"{component} ({variant})"


def has_variant(manifest: Manifest, component: Component, variant: str) -> bool:
    """Whether the bundle has that engine."""
    return any((entry.component, entry.variant) == (component, variant) for entry in manifest.engines)


def decoder_chain(manifest: Manifest, decoder: str) -> tuple[str, ...]:
    """Return the variants that make up one of ``DECODERS``, in the order in which they run."""
    if decoder == TINY:
        return (TINY,)
    numbered = (f"part{i}" for i in itertools.count(1))
    parts = tuple(itertools.takewhile(lambda part: has_variant(manifest, Component.VAE_DECODER, part), numbered))
    return parts or (FULL,)


def served_engines(manifest: Manifest) -> tuple[EngineEntry, ...]:
    """Return the entries of all engines that a request may ask for. Raises BundleError where one is missing."""
    needed = [(Component.TEXT_ENCODER, FULL), (Component.UNET, FULL)]
    needed += [(Component.VAE_DECODER, variant) for variant in decoder_chain(manifest, FULL)]
    offered = [(Component.UNET, SHALLOW), (Component.SAFETY_CHECKER, FULL), (Component.VAE_ENCODER, FULL)]
    offered += [(Component.VAE_DECODER, variant) for variant in (TINY, TILE)]
    wanted = needed + [engine for engine in offered if has_variant(manifest, *engine)]
    return tuple(manifest.engine(component, variant) for component, variant in wanted)


def built_rows(manifest: Manifest) -> dict[str, int]:
    """Return the most rows of one UNet call that each of its served engines was built for, by variant."""
    return {e.variant: e.axes["rows"].max for e in served_engines(manifest) if e.component is Component.UNET}
