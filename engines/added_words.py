"""Words that textual-inversion files add to a bundle's vocabulary, and their rows behind those of its table.

The bundle's files stay as they are and no engine is compiled anew, since the text encoder takes embeddings, not tokens.
Imports numpy and the `tokenizers` library.
"""

import logging
import re
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Tokenizer

from mezzotint.engines.embedding_file import Embedding, EmbeddingPath, embedding_files, read_embedding
from mezzotint.engines.errors import EmbeddingError

logger = logging.getLogger(__name__)

Table = npt.NDArray[np.float32]

_NAME = re.compile(r"[^\s()\[\]:|\\,]{1,100}")  # nothing that the language of prompts has a use for
_KEYWORDS = ("and", "break")
_NUM_DIGITS = 12  # of a digest, as A1111 writes it


class AddedWords:
    """The trigger words of one bundle, over its tokenizer and table.

    Args:
        tokenizer: learns each word as a token of its own, in capitals or not.
        table: float32 or float16 [tokens, width]; never copied.
        max_vectors: the tokens that a prompt has room for.
    """

    def __init__(self, tokenizer: Tokenizer, table: Table, max_vectors: int) -> None:
        self._tokenizer = tokenizer
        self._table = table
        self._max_vectors = max_vectors
        self._rows: dict[int, tuple[int, ...]] = {}  # of each word's token
        self._words: dict[int, Embedding] = {}
        self._added = np.empty((0, table.shape[1]), np.float32)

    def load(self, given: Iterable[EmbeddingPath]) -> None:
        """Add files and all of folders. Of a folder, those that do not fit this bundle are left out with a warning.

        Raises:
            EmbeddingError: a file that was named cannot be read or does not fit.
        """
        for source in given:
            for file in embedding_files(source):
                try:
                    self.add(read_embedding(file))
                except EmbeddingError as error:
                    if file is source:
                        raise
                    logger.warning("left out: %s", error)

    def add(self, embedding: Embedding) -> None:
        """Learn a word. Raises EmbeddingError where its name or its vectors do not fit."""
        self._check(embedding)
        first = len(self._table) + len(self._added)
        self._tokenizer.add_tokens([AddedToken(embedding.name, single_word=True, normalized=True)])
        (token,) = self._tokenizer.encode(embedding.name, add_special_tokens=False).ids
        self._rows[token] = tuple(range(first, first + len(embedding.vectors)))
        self._words[token] = embedding
        self._added = np.concatenate([self._added, embedding.vectors])

    def rows(self, token: int) -> tuple[int, ...]:
        """Return the rows of the table that a token stands for: a trigger word's are as many as it has vectors."""
        return self._rows.get(token, (token,))

    def embed(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Look rows int64 [...] up: float32 [..., width]."""
        num_own = len(self._table)
        found = np.ascontiguousarray(self._table[np.minimum(rows, num_own - 1)], dtype=np.float32)
        is_added = rows >= num_own
        if is_added.any():
            found[is_added] = self._added[rows[is_added] - num_own]
        return found

    def hashes(self, texts: Sequence[str]) -> str:
        """Return the names and digests of the words that texts have, as A1111's ``TI hashes``; empty without any."""
        if not self._words:
            return ""
        tokens = {token for text in texts for token in self._tokenizer.encode(text, add_special_tokens=False).ids}
        found = [word for token, word in self._words.items() if token in tokens]
        return ", ".join(f"{word.name}: {word.digest[:_NUM_DIGITS]}" for word in found)

    def _check(self, embedding: Embedding) -> None:
        name, (count, width) = embedding.name, embedding.vectors.shape
        own = self._table.shape[1]
        known: list[int] = self._tokenizer.encode(name, add_special_tokens=False).ids
        unknown = self._tokenizer.token_to_id(self._tokenizer.model.unk_token)
        if not _NAME.fullmatch(name) or name.lower() in _KEYWORDS:
            why = "its name must be one word without ()[]:|\\, and none of the language of prompts"
        elif any(word.name.lower() == name.lower() for word in self._words.values()):
            why = "another file has that name"
        elif len(known) == 1 and known != [unknown]:
            why = "its name is a word that the model knows, which every prompt with it would then mean"
        elif width != own:
            why = f"its vectors have a width of {width}, and this model takes {own}: it was made for another one"
        elif count > self._max_vectors:
            why = f"it has {count} vectors, and a prompt has room for {self._max_vectors}"
        else:
            return
        remedy = "leave it out" if width != own or count > self._max_vectors else "name it `--embedding NAME=FILE`"
        raise EmbeddingError(f"embedding {name[:100]!r}: {why}; {remedy}")
