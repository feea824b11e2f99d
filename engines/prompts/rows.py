"""What an image's rows say at each step: their prompts as chunks of tokens, each different text once.

Pure but for the tokenizer. All rows of an image have as many chunks as the longest, filled up with empty ones, as with
A1111's option to pad prompt and negative prompt to one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest, MezzotintError, ShapeNotCompiled
from mezzotint.engines.manifest import Manifest
from mezzotint.engines.prompt import Prompts
from mezzotint.engines.prompts.chunks import Chunks, padded
from mezzotint.engines.prompts.editing import texts_by_step

MAX_CHUNKS = 64
"""The most chunks of all texts of one image: each is a row of the text encoder, and is held from step to step."""


@dataclass(frozen=True, slots=True, eq=False)
class Saying:
    """What a client says for one row: a prompt under its field's name, or float32 [tokens, width] states instead."""

    field: str
    prompt: str
    states: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One row of an image, at all of its steps.

    Attributes:
        texts: each different text that it has.
        of_step: which of them each of the user's steps sees.
        states: float32 [tokens, width], a client's own instead of texts.
    """

    texts: tuple[Chunks, ...]
    of_step: tuple[int, ...]
    states: npt.NDArray[np.float32] | None = None

    @property
    def num_tokens(self) -> int:
        """The tokens that the UNet sees, special ones and padding included."""
        return len(self.states) if self.states is not None else int(self.texts[0].ids.size)

    def at(self, step: int) -> int:
        """Return which of its texts a step, from 0, sees; steps behind the last one see what that one sees."""
        return self.of_step[min(step, len(self.of_step) - 1)] if self.of_step else 0


def max_chunks(manifest: Manifest) -> int:
    """Return the most chunks of a prompt that a bundle's UNet was built for."""
    tokens = manifest.engine(Component.UNET).axes.get("tokens")
    return tokens.max // manifest.text.max_tokens if tokens else 1


def rows_of(prompts: Prompts, said: Sequence[Saying], num_steps: int, manifest: Manifest) -> tuple[Row, ...]:
    """Return an image's rows.

    Raises:
        InvalidRequest: a prompt's weights or brackets are out of bounds, it changes too often, or states of one row are
            shorter or longer than what another says.
        ShapeNotCompiled: a prompt is longer than the bundle was built for.
    """
    most = max_chunks(manifest)
    rows = [_row(prompts, saying, num_steps, most, manifest.name) for saying in said]
    longest = max(len(text) for row in rows for text in row.texts) if any(row.texts for row in rows) else 1
    rows = [replace(row, texts=tuple(padded(text, longest, prompts.special) for text in row.texts)) for row in rows]
    if (num := num_chunks(rows)) > MAX_CHUNKS:
        raise InvalidRequest(
            f"prompt: its texts over all steps fill {num} chunks; the limit is {MAX_CHUNKS}, let fewer words change"
        )
    if len(lengths := {row.num_tokens for row in rows}) > 1:
        raise InvalidRequest(
            f"prompt: its rows have {' and '.join(map(str, sorted(lengths)))} tokens, as states and as texts; "
            "send states for each of them, or texts"
        )
    return tuple(rows)


def num_chunks(rows: Sequence[Row]) -> int:
    """Return how many rows of the text encoder an image's texts are at most: what is known of them is not run again."""
    return sum(len(text) for row in rows for text in row.texts)


def _row(prompts: Prompts, saying: Saying, num_steps: int, most: int, bundle: str) -> Row:
    if saying.states is not None:
        return Row((), (), saying.states)
    try:
        by_step = texts_by_step(saying.prompt, num_steps)
        different = {text: i for i, text in enumerate(dict.fromkeys(by_step))}
        if len(different) > MAX_CHUNKS:
            raise InvalidRequest(
                f"has {len(different)} different texts over its steps; the limit is {MAX_CHUNKS}, "
                "let fewer words change"
            )
        texts = []
        for text in different:
            texts.append(prompts.chunks(text))
            if (num := len(texts[-1])) > most:  # before the others are read: a long prompt may have many texts
                raise ShapeNotCompiled(
                    f"fills {num} chunks of {prompts.special.room} tokens, but bundle {bundle} was built for {most}; "
                    f"shorten it, or compile again with `--max-chunks {num}`"
                )
    except MezzotintError as error:
        raise type(error)(f"{saying.field}: {error}") from None
    return Row(tuple(texts), tuple(different[text] for text in by_step))
