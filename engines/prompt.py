"""Prompts into chunks of tokens and token embeddings, on the host. Imports numpy and the `tokenizers` library."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mezzotint.engines.added_words import AddedWords
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import TextEntry
from mezzotint.engines.prompts.attention import Span, literal, parse_attention
from mezzotint.engines.prompts.chunks import Chunks, Special, Weighted, chunked

_COMMA = ",</w>"  # of CLIP's vocabulary


class Prompts:
    """A bundle's tokenizer and token-embedding table, with the words of textual-inversion files behind it.

    Raises BundleError where the bundle's files cannot be read, EmbeddingError where such a file cannot be used.

    Attributes:
        words: what such files add.
        special: what a row of the text encoder is made of beside words.
    """

    def __init__(self, folder: Path, entry: TextEntry, embeddings: Iterable[EmbeddingPath] = ()) -> None:
        try:
            self._tokenizer = Tokenizer.from_str((folder / entry.tokenizer).read_text(encoding="utf-8"))
            table = np.load(folder / entry.embeddings, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise BundleError(f"{folder}: tokenizer or embeddings cannot be read ({error}); compile it again") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        comma = self._tokenizer.token_to_id(_COMMA)
        self.special = Special(entry.max_tokens, entry.bos_token_id, entry.eos_token_id, entry.pad_token_id, comma)
        self.words = AddedWords(self._tokenizer, table, self.special.room)
        self.words.load(embeddings)

    def chunks(self, text: str) -> Chunks:
        """Return a text, in A1111's language of attention, as rows of the text encoder. Raises InvalidRequest."""
        sections = parse_attention(text)
        return chunked(([word for span in section for word in self._words(span)] for section in sections), self.special)

    def plain(self, text: str) -> str:
        """Return the prompt that shows what a diffusers pipeline shows of a text: as it stands, and of one chunk."""
        while len((found := self._tokenizer.encode(text, add_special_tokens=False)).ids) > self.special.room:
            text = text[: found.offsets[self.special.room][0]]
        return literal(text)

    def _words(self, span: Span) -> Iterator[Weighted]:
        ids: list[int] = self._tokenizer.encode(span.text, add_special_tokens=False).ids
        return ((self.words.rows(token), span.weight) for token in ids)

    def embed(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Look tokens int64 [rows, tokens] up: float32 [rows, tokens, width]."""
        return self.words.embed(tokens)
