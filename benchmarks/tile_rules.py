"""A decoder of tiles, and the rules by which a tile's group norms get their statistics: what ``tiles.py`` compares."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines.backend import Engine
from mezzotint.engines.component import Component
from mezzotint.engines.model import Model
from mezzotint.engines.resample import averages, resampled
from mezzotint.engines.tiles import Tiles, Tiling, small_copy
from mezzotint.engines.variants import FULL, TILE

Floats: TypeAlias = npt.NDArray[np.float32]


class Decoder:
    """The two decoders of a bundle, one picture a call."""

    def __init__(self, model: Model) -> None:
        self._whole, self._tile = (model.engines[Component.VAE_DECODER, variant] for variant in (FULL, TILE))
        shapes = self._tile.spec.input_shapes(1)
        self.nothing = np.zeros(shapes[self._tile.spec.inputs[1].name][1:], np.float32)

    def whole(self, latents: Floats) -> Floats:
        """Return the pixels of the whole decode, float32 [3, H, W]."""
        return self._run(self._whole, latents)[0]

    def tile(self, latents: Floats, given: Floats, inner: Floats | None = None) -> tuple[Floats, Floats]:
        """Return the pixels of a tile whose norms take ``given``, and what they measured, by their border's share."""
        natural = np.zeros(1, np.float32)
        pixels, statistics = self._run(self._tile, latents, given, natural if inner is None else inner)
        return pixels, statistics

    def _run(self, engine: Engine, *arrays: Floats) -> list[Floats]:
        given = {tensor.name: array[None] for tensor, array in zip(engine.spec.inputs, arrays, strict=True)}
        outputs = engine.run(given)
        return [np.array(outputs[tensor.name][0]) for tensor in engine.spec.outputs]


Rule: TypeAlias = Callable[[Decoder, Tiles, Floats], list[Floats]]
"""Makes the pixels of each tile of a picture."""


def with_own(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """Plain blending: each tile's norms measure the tile."""
    return _tiles(decoder, tiles, latents, decoder.nothing)


def with_small_copy(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """As the server does."""
    small = tiles.latents(latents, 0)
    return _tiles(decoder, tiles, latents, decoder.tile(small, decoder.nothing, tiles.inner(latents))[1])


def with_as_shown(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """A small copy's, with as much border as it has."""
    return _tiles(decoder, tiles, latents, decoder.tile(tiles.latents(latents, 0), decoder.nothing)[1])


def with_averaged_copy(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """A small copy whose latents are averaged and left as pale as they become."""
    small = resampled(latents, tiles.tiling.tile, averages)
    return _tiles(decoder, tiles, latents, decoder.tile(small, decoder.nothing, tiles.inner(latents))[1])


def with_picked_copy(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """A small copy of every n-th latent."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for old, new in zip(tiles.tiling.picture, tiles.tiling.tile, strict=True)
    )
    small = np.ascontiguousarray(latents[:, rows][:, :, columns])
    return _tiles(decoder, tiles, latents, decoder.tile(small, decoder.nothing, tiles.inner(latents))[1])


def with_all_tiles(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """What all tiles measured, each with its own statistics before: every tile is decoded twice."""
    found = [decoder.tile(tiles.latents(latents, call), decoder.nothing)[1] for call in range(1, tiles.num_calls)]
    means = np.mean([mean for mean, _ in found], axis=0)
    squares = np.mean([mean**2 + deviation**2 for mean, deviation in found], axis=0)
    together = np.stack([means, np.sqrt(squares - means**2)]).astype(np.float32)
    return _tiles(decoder, tiles, latents, together)


def with_the_whole(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """What the whole picture measures, which only a whole decode knows: the best that there can be."""
    return _tiles(decoder, tiles, latents, decoder.tile(latents, decoder.nothing)[1])


def matched_to_small_copy(decoder: Decoder, tiles: Tiles, latents: Floats) -> list[Floats]:
    """Own statistics, then each channel's mean and deviation made those of a small copy's pixels there."""
    small = decoder.tile(small_copy(latents, tiles.tiling.tile), decoder.nothing)[0]
    matched = []
    for call, pixels in enumerate(with_own(decoder, tiles, latents), 1):
        region = _part_of(small, tiles.tiling, call)
        spread = region.std(axis=(1, 2), keepdims=True) / (pixels.std(axis=(1, 2), keepdims=True) + 1e-6)
        centred = pixels - pixels.mean(axis=(1, 2), keepdims=True)
        matched.append(centred * spread + region.mean(axis=(1, 2), keepdims=True))
    return matched


RULES: Mapping[str, Rule] = {
    "each tile's own (plain blending)": with_own,
    "own, then matched to a small copy's pixels": matched_to_small_copy,
    "a small copy's": with_as_shown,
    "**a small copy's, its border as in the whole** (the server)": with_small_copy,
    "likewise, but latents averaged and left pale": with_averaged_copy,
    "likewise, but every n-th latent": with_picked_copy,
    "all tiles', decoded twice": with_all_tiles,
    "the whole picture's (the bound)": with_the_whole,
}


def _tiles(decoder: Decoder, tiles: Tiles, latents: Floats, given: Floats) -> list[Floats]:
    return [decoder.tile(tiles.latents(latents, call), given)[0] for call in range(1, tiles.num_calls)]


def _part_of(small: Floats, tiling: Tiling, call: int) -> Floats:
    """Return the part of a small copy's pixels that a tile covers."""
    spans = [
        slice(round(start * length / whole), round((start + tile) * length / whole))
        for start, tile, whole, length in zip(
            tiling.corners[call - 1], tiling.tile, tiling.picture, small.shape[1:], strict=True
        )
    ]
    return small[:, spans[0], spans[1]]
