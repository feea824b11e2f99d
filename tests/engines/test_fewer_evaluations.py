"""Guidance intervals, step caching and decoders: what is run, and that it gives what a plain loop gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.model import EngineKey, Model
from mezzotint.engines.request import Request
from mezzotint.engines.variants import FULL
from tests.engines.by_hand import by_hand, paint, same, widened
from tests.fakes import SHALLOW_UNET, UNET, FakeEngine, fake_model

Fakes = tuple[Model, dict[EngineKey, FakeEngine]]
OTHERS = (
    Request(prompt="a dog", steps=4, guidance=3.0, seed=1, sampler="heun"),
    Request(prompt="red", steps=7, guidance=1.0, seed=2, sampler="dpmpp_2m", num_images=2),
    Request(prompt="blue", steps=6, guidance=6.0, seed=3, cache_interval=2, sampler="euler_a"),
    Request(prompt="hat", steps=9, guidance=5.0, seed=4, guidance_start=0.3, guidance_end=0.6, cache_interval=3),
    Request(prompt="on", steps=5, guidance=2.0, seed=5, cache_schedule=(0, 2), decoder="tiny"),
)
CACHED = Request(prompt="a cat", steps=8, guidance=4.0, guidance_end=0.7, seed=7, cache_interval=3, return_latents=True)


@pytest.fixture
def fakes(tmp_path: Path) -> Fakes:
    return fake_model(tmp_path, step_cache=True, cut_decoder=True, tiny_decoder=True)


def test_the_whole_interval_is_bit_equal_to_none(emoji: Model) -> None:
    request = {"prompt": "a shark", "steps": 5, "guidance": 4.0, "seed": 9, "sampler": "euler"}
    assert same(
        paint(emoji, Request(**request)), paint(emoji, Request(**request, guidance_start=0.0, guidance_end=1.0))
    )


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp_2m"])
def test_an_interval_gives_what_a_loop_over_one_row_calls_gives(emoji: Model, sampler: str) -> None:
    request = Request(
        prompt="a shark", steps=6, guidance=4.0, guidance_start=0.2, guidance_end=0.7, seed=9, sampler=sampler,
        negative_prompt="a cat", return_latents=True,
    )  # fmt: skip
    latents = paint(emoji, request).latents
    assert latents is not None
    assert np.array_equal(latents, by_hand(emoji, request))
    assert not np.array_equal(latents, by_hand(emoji, Request(steps=6, guidance=4.0, seed=9, sampler=sampler)))


def test_an_interval_is_bit_equal_alone_and_among_others(emoji: Model) -> None:
    wide = widened(emoji)
    mine = Request(prompt="a shark", steps=5, guidance=4.0, guidance_start=0.2, guidance_end=0.6, seed=9)
    others = [
        Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", guidance_end=0.5),
        Request(prompt="a dog", steps=7, guidance=1.0, seed=2, num_images=3),
    ]
    (among,), *_ = generate(wide, [mine, *others])
    assert same(among, paint(emoji, mine))


def test_rows_outside_the_interval_are_not_run(fakes: Fakes) -> None:
    model, engines = fakes
    paint(model, Request(steps=10, guidance=4.0, guidance_start=0.2, guidance_end=0.8))
    assert engines[UNET].calls == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]


def test_an_interval_that_no_step_is_in_encodes_and_runs_one_row(fakes: Fakes) -> None:
    model, engines = fakes
    paint(model, Request(steps=2, guidance=4.0, guidance_start=0.9))
    assert engines[Component.TEXT_ENCODER, FULL].calls == [1]
    assert engines[UNET].calls == [1, 1]


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
@pytest.mark.parametrize(
    "caching", [{"cache_interval": 3}, {"cache_schedule": (1, 2, 6)}, {"cache_interval": 2, "guidance_start": 0.4}]
)
def test_caching_gives_what_a_loop_over_one_row_calls_gives(
    fakes: Fakes, sampler: str, caching: dict[str, Any]
) -> None:
    model, _ = fakes
    request = Request(prompt="a cat", steps=7, guidance=4.0, seed=3, sampler=sampler, return_latents=True, **caching)
    latents = paint(model, request).latents
    assert latents is not None
    assert np.array_equal(latents, by_hand(model, request))
    plain = Request(prompt="a cat", steps=7, guidance=4.0, seed=3, sampler=sampler)
    assert not np.array_equal(latents, by_hand(model, plain))


def test_shallow_calls_run_on_the_shallow_engine_with_the_rows_that_are_left(fakes: Fakes) -> None:
    model, engines = fakes
    paint(model, CACHED)
    assert engines[UNET].calls == [2, 2, 1]
    assert engines[SHALLOW_UNET].calls == [2, 2, 2, 2, 1]


@pytest.mark.parametrize("place", range(len(OTHERS) + 1))
def test_caching_is_bit_equal_alone_and_at_any_place_among_others(fakes: Fakes, place: int) -> None:
    model, _ = fakes
    alone = paint(model, CACHED)
    mixed = generate(model, [*OTHERS[:place], CACHED, *OTHERS[place:]])[place][0]
    assert np.array_equal(alone.latents, mixed.latents)  # type: ignore[arg-type]
    assert same(alone, mixed)


def test_requests_with_caching_share_full_calls_with_those_without_and_shallow_ones_among_themselves(
    fakes: Fakes,
) -> None:
    model, engines = fakes
    cached = Request(steps=4, guidance=4.0, cache_interval=2)
    generate(model, [cached, cached, Request(steps=2, guidance=1.0)])
    assert engines[UNET].calls == [5, 5]  # the plain request waits for the others' shallow calls
    assert engines[SHALLOW_UNET].calls == [4, 4]


def test_a_feature_is_kept_as_long_as_a_shallow_call_needs_it_and_not_without_caching(fakes: Fakes) -> None:
    model, _ = fakes
    kept = {}
    for request in (CACHED, Request(prompt="a cat", steps=8, guidance=4.0)):
        image = model.start(request)[0]
        kept[request] = []
        while image.remaining:
            run_call(model, Batch((image,)))
            kept[request].append(image.feature is not None)
    assert kept[CACHED] == [False, True, True, False, True, True, False, True, False]
    assert not any(list(kept.values())[1])


def test_parts_of_a_decoder_give_what_the_whole_one_gives(fakes: Fakes, tmp_path: Path) -> None:
    model, engines = fakes
    whole, _ = fake_model(tmp_path)
    request = Request(prompt="a cat", steps=3, num_images=2, return_latents=True)
    for a, b in zip(generate(model, [request])[0], generate(whole, [request])[0], strict=True):
        assert same(a, b)
        assert np.array_equal(a.latents, b.latents)  # type: ignore[arg-type]
        assert a.hidden is None
    assert [engines[Component.VAE_DECODER, f"part{i}"].calls for i in (1, 2, 3)] == [[1, 1]] * 3


def test_a_tiny_decoder_is_run_where_it_is_asked_for(fakes: Fakes) -> None:
    model, engines = fakes
    tiny, full = Request(steps=2, decoder="tiny", return_latents=True), Request(steps=2, decoder="full")
    (a,), (b,), (c,) = generate(model, [tiny, full, Request(steps=2)])
    assert not same(a, b)
    assert same(b, c)
    assert engines[Component.VAE_DECODER, "tiny"].calls == [1]
    assert engines[Component.VAE_DECODER, "part1"].calls == [1, 1]


def test_every_engine_is_warmed_up_at_the_size_it_was_tuned_at(fakes: Fakes) -> None:
    model, engines = fakes
    model.warm_up()
    assert {key: engine.calls for key, engine in engines.items()} == {key: [1] for key in engines}
    model.warm_up_rest()
    assert all(sorted(engine.calls) == [1, 1, 2, 4, 8] for engine in engines.values())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"guidance_start": -0.1}, "guidance_start=-0.1: must be a share of the steps, between 0 and 1"),
        ({"guidance_end": float("nan")}, "guidance_end=nan: must be a share of the steps, between 0 and 1"),
        (
            {"guidance_start": 0.8, "guidance_end": 0.2},
            "guidance_start=0.8: must be below guidance_end=0.2; for no guidance at all use guidance 1",
        ),
        ({"guidance_rescale": 1.5}, "guidance_rescale=1.5: must be between 0 and 1; 0 is none, 0.7 is usual"),
        ({"cache_interval": 0}, "cache_interval=0: must be between 1 and 1000"),
        (
            {"cache_interval": 2, "cache_schedule": (0, 3)},
            "cache_interval=2: leaves no room for a cache_schedule; send one of them",
        ),
        (
            {"cache_schedule": (3, 0)},
            "cache_schedule=[3, 0]: must be evaluations from 0 on, rising; such as 0, 3, 7",
        ),
        (
            {"cache_schedule": (-1, 2)},
            "cache_schedule=[-1, 2]: must be evaluations from 0 on, rising; such as 0, 3, 7",
        ),
        ({"decoder": "best"}, "decoder='best': must be one of full, tiny, or empty"),
    ],
)
def test_a_wrong_field_is_one_sentence(fakes: Fakes, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        fakes[0].start(Request(**fields))
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (
            {"cache_interval": 3},
            "cache_interval=3: bundle emoji was built without step caching; compile again with `--step-cache`",
        ),
        (
            {"cache_schedule": (0,)},
            "cache_schedule: bundle emoji was built without step caching; compile again with `--step-cache`",
        ),
        (
            {"decoder": "tiny"},
            "decoder='tiny': bundle emoji was built without one; compile again with `--tiny-decoder FOLDER`",
        ),
    ],
)
def test_what_a_bundle_was_not_built_with_is_one_sentence(emoji: Model, fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        emoji.start(Request(**fields))
    assert str(refusal.value) == sentence
