"""The identifier, the word that will mean the subject: does this model's tokenizer keep it whole, and is it free?

A word that splits into pieces is learned worse, and drags the pieces' other words along (DreamBooth, section 3.2).
"""

from typing import Any

import torch

_MIN_LETTERS, _MAX_LETTERS = 3, 4
_END = "</w>"


def identifier_of(instance_prompt: str, class_prompt: str) -> str:
    """Return the words of the instance's prompt that the class's does not have, such as ``sks``; "" without a class."""
    if not class_prompt:
        return ""
    known = set(class_prompt.lower().split())
    return " ".join(word for word in instance_prompt.split() if word.lower() not in known)


def identifier_warning(identifier: str, tokenizer: Any, embeddings: torch.Tensor) -> str:
    """Return a sentence where an identifier splits into several tokens, naming better ones, or "".

    Args:
        identifier: one word or more.
        tokenizer: transformers' CLIP tokenizer of the model.
        embeddings: the text encoder's table of token embeddings, float32 [tokens, width].
    """
    pieces = {word: tokenizer.tokenize(word) for word in identifier.split()}
    split = {word: tokens for word, tokens in pieces.items() if len(tokens) != 1}
    if not split:
        return ""
    said = ", ".join(
        f"{word!r} is {len(tokens)} tokens of this model's tokenizer ({' '.join(t.removesuffix(_END) for t in tokens)})"
        for word, tokens in split.items()
    )
    better = ", ".join(rare_words(tokenizer, embeddings, 5))
    return (
        f"identifier: {said}, which are learned less well than a single one and change other words that hold them; "
        f"rare words of one token are {better}"
    )


def rare_words(tokenizer: Any, embeddings: torch.Tensor, count: int) -> list[str]:
    """Return short words that are one token each and hardly mean anything to the model, the rarest first.

    A BPE vocabulary is ordered by how often its pieces occurred, so words come from its later half; among those the
    model has seen the least whose embedding is shortest, since training starts them all near zero. Neither says what a
    word means to the model: paint it before you train.
    """
    vocabulary = tokenizer.get_vocab()
    lengths = embeddings.detach().float().norm(dim=1)
    found = [
        (float(lengths[index]), word)
        for token, index in vocabulary.items()
        if token.endswith(_END)
        and index >= len(vocabulary) // 2
        and _MIN_LETTERS <= len(word := token.removesuffix(_END)) <= _MAX_LETTERS
        and word.isascii()
        and word.isalpha()
        and tokenizer.tokenize(word) == [token]
    ]
    return [word for _, word in sorted(found)[:count]]
