"""Prompts into token rows and token embeddings, on the host. Imports numpy and the `tokenizers` library."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from mezzotint.engines.errors import BundleError
from mezzotint.engines.manifest import TextEntry


@dataclass(frozen=True, slots=True)
class Tokens:
    """A prompt as one row: ``ids`` int64 [max_tokens]; ``num_dropped`` tokens of it did not fit."""

    ids: npt.NDArray[np.int64]
    num_dropped: int


class Prompts:
    """A bundle's tokenizer and token-embedding table; rows appended to the table are textual-inversion vectors."""

    def __init__(self, folder: Path, entry: TextEntry) -> None:
        self._entry = entry
        try:
            self._tokenizer = Tokenizer.from_str((folder / entry.tokenizer).read_text(encoding="utf-8"))
            self._table = np.load(folder / entry.embeddings, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # the tokenizers library raises bare Exception
            raise BundleError(f"{folder}: tokenizer or embeddings cannot be read ({error}); compile it again") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokens(self, prompt: str) -> Tokens:
        """Return the prompt between its two special tokens, padded or cut to the model's length."""
        entry = self._entry
        room = entry.max_tokens - 2
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        row = np.full(entry.max_tokens, entry.pad_token_id, dtype=np.int64)
        kept = ids[:room]
        row[: len(kept) + 2] = [entry.bos_token_id, *kept, entry.eos_token_id]
        return Tokens(row, max(0, len(ids) - room))

    def embed(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Look tokens int64 [rows, tokens] up: float32 [rows, tokens, width]."""
        return np.ascontiguousarray(self._table[tokens], dtype=np.float32)
