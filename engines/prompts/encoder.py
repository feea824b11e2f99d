"""The text encoder's calls: chunks into states where the UNet takes them, each different chunk once, the latest kept.

One thread calls it. Array-API code but for the lookup of embeddings.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from mezzotint.engines import device
from mezzotint.engines.backend import Engine
from mezzotint.engines.device import Array
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.prompts.chunks import Chunks
from mezzotint.engines.prompts.rows import Row
from mezzotint.engines.shapes import Uses

Text: TypeAlias = tuple[tuple[Array, ...], ...]
"""The states of each text of each of an image's rows: float32 [tokens, width]."""

CACHE_BYTES = 32 << 20  # 140 chunks of Stable Diffusion 1.5

_Key: TypeAlias = tuple[int, bytes]


class TextEncoder:
    """Encodes the rows of images.

    Args:
        engine: the compiled text encoder.
        embed: looks token ids int64 [rows, tokens] up.
        place: brings an array to where the UNet takes it.
        cache_bytes: what is kept of encoded chunks.
    """

    def __init__(
        self,
        engine: Engine,
        embed: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
        place: Callable[[Array], Array],
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._engine = engine
        self._embed = embed
        self._place = place
        self._limit = cache_bytes
        self._kept: OrderedDict[_Key, Array] = OrderedDict()
        self._num_bytes = 0
        self.uses = Uses()

    @property
    def num_layers(self) -> int:
        """The layers whose states the engine gives, the last first."""
        return int(self._engine.spec.outputs[0].axes[1])

    def layer_of(self, clip_skip: int) -> int:
        """Return the layer, from the end, that a request's ``clip_skip`` names. Raises InvalidRequest."""
        if not 0 <= clip_skip <= self.num_layers:
            raise InvalidRequest(
                f"clip_skip={clip_skip}: must be between 0 and {self.num_layers}, the last layers of the text encoder "
                "that this bundle gives; 1 is the last, 2 the last but one"
            )
        return max(0, clip_skip - 1)

    def encode(self, asked: Sequence[tuple[Sequence[Row], int]]) -> list[Text]:
        """Return the states of each image's rows, given with its layer; images that share their rows share them.

        Raises EngineFailed.
        """
        wanted = {
            (layer, ids.tobytes()): ids
            for rows, layer in asked
            for row in rows
            for text in row.texts
            for ids in text.ids
        }
        states = self._states(wanted)
        made: dict[tuple[int, int], Text] = {}
        for rows, layer in asked:
            if (id(rows), layer) not in made:
                made[id(rows), layer] = tuple(self._row(row, layer, states) for row in rows)
        return [made[id(rows), layer] for rows, layer in asked]

    def forget(self) -> None:
        """Let go of what is kept."""
        self._kept.clear()
        self._num_bytes = 0

    def _row(self, row: Row, layer: int, states: Mapping[_Key, Array]) -> tuple[Array, ...]:
        if row.states is not None:
            return (self._place(row.states),)
        return tuple(self._text(text, layer, states) for text in row.texts)

    def _text(self, text: Chunks, layer: int, states: Mapping[_Key, Array]) -> Array:
        parts = [
            weighted(states[layer, ids.tobytes()], weights) for ids, weights in zip(text.ids, text.weights, strict=True)
        ]
        return parts[0] if len(parts) == 1 else device.xp(parts[0]).concat(parts)

    def _states(self, wanted: Mapping[_Key, npt.NDArray[np.int64]]) -> dict[_Key, Array]:
        """Return the states of chunks: what is kept of them, and the others in calls that the engine was built for."""
        found = {key: self._kept[key] for key in wanted if key in self._kept}
        missing = [key for key in wanted if key not in found]
        self.uses.hits += len(found)
        self.uses.misses += len(missing)
        most = self._engine.spec.axes["rows"].max
        for first in range(0, len(missing), most):
            keys = missing[first : first + most]
            embeddings = self._embed(np.stack([wanted[key] for key in keys]))
            states = self._place(self._engine.run({"embeddings": embeddings})["states"])
            for i, key in enumerate(keys):
                found[key] = device.xp(states).asarray(states[i, key[0], ...], copy=True)
        self._keep(wanted, found)
        return found

    def _keep(self, order: Iterable[_Key], found: Mapping[_Key, Array]) -> None:
        """Keep the latest chunks within the limit."""
        for key in order:
            if key not in self._kept:
                self._num_bytes += _num_bytes(found[key])
            self._kept[key] = found[key]
            self._kept.move_to_end(key)
        while self._num_bytes > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._num_bytes -= _num_bytes(dropped)


def weighted(states: Array, weights: npt.NDArray[np.float32]) -> Array:
    """Return a chunk's states float32 [tokens, width], each token's times its weight, with the mean that they had.

    A1111's rule (``EmphasisOriginal`` of its ``sd_emphasis.py``), for each chunk alone; where all weights are 1 nothing
    is computed.
    """
    if (weights == 1).all():
        return states
    xp = device.xp(states)
    scaled = states * xp.reshape(device.from_host(weights, states), (-1, 1))
    before, after = xp.mean(states), xp.mean(scaled)
    one = xp.ones_like(after)
    return scaled * xp.where(after == 0, one, before / xp.where(after == 0, one, after))


def _num_bytes(array: Array) -> int:
    return 4 * int(array.size)
