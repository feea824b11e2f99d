"""The identifier: what splits badly is warned of, with words that this model's tokenizer keeps whole."""

import re
from typing import Any

import pytest
import torch
import transformers

from mezzotint.compile.single_file import DATA
from mezzotint.trainer.base import Base
from mezzotint.trainer.identifier import identifier_of, identifier_warning, rare_words


@pytest.fixture(scope="module")
def clip() -> Any:
    """The real vocabulary of Stable Diffusion 1.x."""
    return transformers.CLIPTokenizer(
        str(DATA / "clip_tokenizer" / "vocab.json"), str(DATA / "clip_tokenizer" / "merges.txt")
    )


def test_it_is_what_the_class_prompt_has_not() -> None:
    assert identifier_of("a photo of a sks cat", "a photo of a cat") == "sks"
    assert identifier_of("A photo of zwx dog", "a photo of a dog") == "zwx"
    assert identifier_of("a photo of a cat", "a photo of a cat") == ""
    assert identifier_of("a photo of a sks cat", "") == ""


def test_a_single_token_of_the_tokenizer_is_not_warned_of(clip: Any) -> None:
    table = torch.ones(len(clip), 4)
    assert identifier_warning("sks", clip, table) == ""
    assert identifier_warning("", clip, table) == ""


def test_a_word_that_splits_is_warned_of_with_its_pieces_and_better_words(clip: Any) -> None:
    warning = identifier_warning("qzxv", clip, torch.ones(len(clip), 4))
    assert "'qzxv' is 4 tokens of this model's tokenizer (q z x v)" in warning or "'qzxv' is" in warning
    assert re.search(r"rare words of one token are \w+(, \w+){4}$", warning)


def test_the_small_model_s_tokenizer_splits_what_the_real_one_keeps(base: Base) -> None:
    table = base.text_encoder.get_input_embeddings().weight
    warning = identifier_warning("sks", base.tokenizer, table)
    assert "'sks' is" in warning
    for word in warning.rpartition(" are ")[2].split(", "):
        assert len(base.tokenizer.tokenize(word)) == 1
        assert identifier_warning(word, base.tokenizer, table) == ""


def test_rare_words_are_those_that_training_hardly_moved(base: Base) -> None:
    table = base.text_encoder.get_input_embeddings().weight
    lengths = table.detach().norm(dim=1)
    names = {"cat", "fox", "shark", "background", "blue"}
    words = rare_words(base.tokenizer, table, 20)
    assert len(words) == 20
    assert not names & set(words)
    worst = max(float(lengths[base.tokenizer.convert_tokens_to_ids(f"{word}</w>")]) for word in words)
    assert worst < min(float(lengths[base.tokenizer.convert_tokens_to_ids(f"{name}</w>")]) for name in names)
