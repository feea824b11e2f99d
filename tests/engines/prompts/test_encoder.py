"""The text encoder's calls: each different chunk once, the latest kept, weights with the mean that was there."""

from pathlib import Path

import array_api_strict
import numpy as np
import pytest

from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.model import Model
from mezzotint.engines.prompts.encoder import TextEncoder, weighted
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from tests.fake_manifest import TOKENS, WIDTH
from tests.fakes import FakeEngine, fake_model

CHUNK_BYTES = 4 * TOKENS * WIDTH


@pytest.fixture
def made(tmp_path: Path) -> tuple[Model, FakeEngine]:
    model, engines = fake_model(tmp_path)
    return model, engines[Component.TEXT_ENCODER, FULL]


def encoded(model: Model, *requests: Request) -> list[np.ndarray]:
    images = [image for request in requests for image in model.start(request)]
    model.encode(Batch(tuple(images)))
    return [Batch((image,)).inputs()["text"].copy() for image in images]


def test_a_chunk_is_encoded_once_whoever_asks_for_it(made: tuple[Model, FakeEngine]) -> None:
    model, engine = made
    first, second, again = encoded(
        model, Request(prompt="a cat"), Request(prompt="a dog"), Request(prompt="a cat", num_images=1, seed=4)
    )
    assert engine.calls == [3]  # both prompts and the empty one
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    (later,) = encoded(model, Request(prompt="a cat BREAK (red:1.5) hat", negative_prompt="a dog"))
    assert engine.calls == [3, 1]  # one chunk is new
    np.testing.assert_array_equal(later[1, :TOKENS], first[1])
    np.testing.assert_array_equal(later[0, :TOKENS], second[1])
    np.testing.assert_array_equal(later[0, TOKENS:], first[0])
    uses = model.cache_uses()["text"]
    assert (uses.hits, uses.misses) == (3, 4)


def test_images_of_a_request_share_their_states(made: tuple[Model, FakeEngine]) -> None:
    model, _ = made
    images = model.start(Request(prompt="(cat:1.2) BREAK dog", num_images=3))
    model.encode(Batch(images))
    assert len({id(states) for image in images for row in image.text or () for states in row}) == 2


def test_many_chunks_take_the_calls_that_the_engine_was_built_for(made: tuple[Model, FakeEngine]) -> None:
    model, engine = made
    words = "[" + "|".join(f"{a} {b}" for a in ("cat", "dog", "red") for b in ("cat", "on", "hat", "blue")) + "]"
    (image,) = model.start(Request(prompt=words, steps=12))
    model.encode(Batch((image,)))
    assert engine.calls == [8, 5]  # twelve texts and the negative prompt
    alone = [encoded(model, Request(prompt=words.strip("[]").split("|")[i], guidance=1.0))[0][0] for i in range(12)]
    assert image.text is not None
    for states, truth in zip(image.text[1], alone, strict=True):
        np.testing.assert_array_equal(states, truth)


def test_what_is_kept_stays_within_its_limit_and_the_oldest_goes(made: tuple[Model, FakeEngine]) -> None:
    model, engine = made
    encoder = TextEncoder(engine, model.prompts.embed, lambda states: states, cache_bytes=2 * CHUNK_BYTES)

    def encode(prompt: str) -> None:
        encoder.encode([(model.start(Request(prompt=prompt, guidance=1.0))[0].rows, 0)])

    for prompt in ("a", "cat", "a", "dog", "a", "cat"):  # cat was used longest ago when dog came
        encode(prompt)
    assert (encoder.uses.hits, encoder.uses.misses) == (2, 4)
    encode("red BREAK blue BREAK on")  # more than it keeps
    assert len(engine.calls) == 5
    encoder.forget()
    encode("on")
    assert len(engine.calls) == 6


def test_weights_scale_tokens_and_keep_the_mean_of_their_chunk() -> None:
    rng = np.random.default_rng(1)
    states = rng.standard_normal((TOKENS, WIDTH), np.float32) + np.float32(0.3)
    weights = rng.uniform(0.5, 1.5, TOKENS).astype(np.float32)
    made = weighted(states, weights)
    assert made.mean() == pytest.approx(states.mean(), rel=1e-5)
    ratio = made / (states * weights[:, None])
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)


def test_plain_weights_leave_states_as_they_are() -> None:
    states = np.ones((TOKENS, WIDTH), np.float32)
    assert weighted(states, np.ones(TOKENS, np.float32)) is states


def test_weights_that_leave_no_mean_scale_tokens_alone() -> None:
    states = np.ones((2, WIDTH), np.float32)
    np.testing.assert_array_equal(weighted(states, np.array([1, -1], np.float32)), [[1] * WIDTH, [-1] * WIDTH])


def test_weights_are_array_api_code() -> None:
    states = array_api_strict.asarray(np.arange(8, dtype=np.float32).reshape(2, 4))
    made = weighted(states, np.array([1, 0.5], np.float32))
    np.testing.assert_allclose(np.from_dlpack(made), weighted(np.from_dlpack(states), np.array([1, 0.5], np.float32)))
