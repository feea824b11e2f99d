"""The largest picture that is decoded whole: what memory has room for, by what was measured when compiling.

Imports what it looks at alone: the manifest, row counts and shapes.
"""

import logging
from collections.abc import Mapping

from mezzotint.engines.component import Component
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.prepared import Wanted
from mezzotint.engines.shapes import CompiledShapes
from mezzotint.engines.sizes import own_size
from mezzotint.engines.variants import FULL, TILE, decoder_chain

logger = logging.getLogger(__name__)


def whole_pixels(
    manifest: Manifest,
    wanted: Mapping[tuple[Component, str], Wanted],
    shapes: CompiledShapes | None,
    asked: int | None = None,
) -> int | None:
    """Return the most pixels of a picture that is decoded whole; None is any number.

    It is what was asked for, or else what has room in the memory budget beside the bundle's other engines at one row
    count each. What a decoder takes beside its weights is that of the size it was measured at, times the pixels.
    """
    room = None if shapes is None else shapes.limit_bytes
    if (Component.VAE_DECODER, TILE) not in wanted:
        if asked is not None:
            logger.warning(
                "model %s: has no engine for tiles, so pictures of more than %d pixels are decoded whole; compile it "
                "with --tile-decoder",
                *(manifest.name, asked),
            )
        return None
    if asked is not None or room is None:
        return asked
    chain = [wanted[Component.VAE_DECODER, variant] for variant in decoder_chain(manifest, FULL)]
    others = [engine for engine in wanted.values() if engine.packs_each_shape and engine not in chain]
    weights = sum(engine.file_bytes for engine in chain)
    pictures = sum(engine.least_bytes() for engine in chain) - weights
    left = room - sum(engine.least_bytes() for engine in others) - weights
    own = own_size(manifest).area * manifest.latents.factor**2
    return None if pictures <= 0 else max(own, int(own * left / pictures))
