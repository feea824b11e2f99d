"""Caches: what frozen modules make of pictures and captions, once, equal to what they make each time."""

from pathlib import Path

import pytest
import torch

from mezzotint.trainer.base import Base
from mezzotint.trainer.examples import Shot
from mezzotint.trainer.framing import Framing, middle_square
from mezzotint.trainer.latents import cached_moments, cached_states, moments, tokens_of, too_long
from mezzotint.trainer.pictures import read_picture

CPU = torch.device("cpu")


def test_moments_are_the_vae_s_of_the_square_and_of_its_mirror_image(base: Base, subject: list[Path]) -> None:
    framing = Framing(64, center_crop=True, random_flip=True)
    cache = cached_moments([Shot(path, "") for path in (subject[0], subject[1], subject[0])], framing, base.vae, CPU)
    assert list(cache) == [(path, None) for path in subject[:2]]
    assert cache[subject[0], None].shape == (2, 8, 16, 16)
    square = middle_square(read_picture(subject[0]), 64)
    with torch.no_grad():
        expected = moments(base.vae, torch.stack([square, square.flip(-1)]))
    torch.testing.assert_close(cache[subject[0], None], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(cache[subject[0], None][0], cache[subject[0], None][1])


def test_moments_are_the_mean_and_log_variance_that_diffusers_samples_from(base: Base, subject: list[Path]) -> None:
    cached = cached_moments([Shot(subject[0], "")], Framing(64, True, False), base.vae, CPU)[subject[0], None]
    square = middle_square(read_picture(subject[0]), 64)
    with torch.no_grad():
        posterior = base.vae.encode(square[None]).latent_dist
    mean, log_variance = cached.chunk(2, dim=1)
    torch.testing.assert_close(mean, posterior.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_variance.clamp(-30, 20), posterior.logvar, atol=1e-5, rtol=1e-5)


def test_states_are_the_text_encoder_s_last_ones(base: Base) -> None:
    tokens = tokens_of(["a sks cat", "a cat", "a sks cat"], base.tokenizer)
    assert [ids.shape for ids in tokens.values()] == [(24,), (24,)]
    states = cached_states(tokens, base.text_encoder, CPU)
    with torch.no_grad():
        expected = base.text_encoder(tokens["a cat"][None]).last_hidden_state[0]
    torch.testing.assert_close(states["a cat"], expected, atol=1e-6, rtol=1e-6)


def test_a_module_is_given_back_as_it_was(base: Base) -> None:
    base.text_encoder.train()
    cached_states(tokens_of(["a cat"], base.tokenizer), base.text_encoder, CPU)
    assert base.text_encoder.training
    base.text_encoder.eval()


@pytest.mark.parametrize(("num_words", "cut"), [(22, False), (23, True)])
def test_a_caption_that_is_cut_is_known(base: Base, num_words: int, cut: bool) -> None:
    caption = " ".join(["cat"] * num_words)
    assert too_long([caption, "a cat"], base.tokenizer) == ([caption] if cut else [])
