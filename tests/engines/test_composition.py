"""Composed prompts: how they are split, what their rows weigh, and that their picture is the sum of single runs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mezzotint.engines import guidance
from mezzotint.engines.composition import split_and
from mezzotint.engines.errors import InvalidRequest
from mezzotint.engines.evaluations import unet_calls
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.engines.by_hand import by_hand, paint, same, widened
from tests.engines.test_evaluations import plan_of
from tests.fakes import SHALLOW_UNET, UNET, fake_model

COMPOSED = Request(
    prompt="a shark AND a blue background :0.6 AND a hat :-0.2", negative_prompt="a cat", steps=5, guidance=4.0, seed=9,
    return_latents=True,
)  # fmt: skip
LANGUAGE = "[a shark:a cat:0.4] AND (a blue background:1.3) BREAK a hat :0.6"
OTHERS = [
    Request(prompt="a cat", steps=4, guidance=3.0, seed=1, sampler="heun", guidance_end=0.5),
    Request(prompt="a dog AND a hat", steps=7, guidance=1.0, seed=2, num_images=2),
    Request(prompt="a fox", steps=6, guidance=1.0, seed=3, sampler="euler_a"),
]


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("", [("", 1.0)]),
        ("a cat AND a hat", [("a cat", 1.0), ("a hat", 1.0)]),
        ("a cat :1.2 AND a hat:.5", [("a cat", 1.2), ("a hat", 0.5)]),
        ("a cat AND\na hat : -2. \n", [("a cat", 1.0), ("a hat", -2.0)]),
        ("a cat AND a hat :+3", [("a cat", 1.0), ("a hat", 3.0)]),
        ("(a cat:1.3) AND [a:b:0.5]", [("(a cat:1.3)", 1.0), ("[a:b:0.5]", 1.0)]),
        ("a ratio of 16:9", [("a ratio of 16:9", 1.0)]),
        ("sand AND BAND ANDroid and", [("sand", 1.0), ("BAND ANDroid and", 1.0)]),
        ("a AND b:c AND d:1e3 AND e:", [("a", 1.0), ("b:c", 1.0), ("d:1e3", 1.0), ("e:", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
        ("a: 2: 3 AND b", [("a: 2", 3.0), ("b", 1.0)]),
    ],
)
def test_a_prompt_is_split_at_and_and_the_number_behind_the_last_colon_is_the_weight(
    prompt: str, parts: list[tuple[str, float]]
) -> None:
    assert split_and(prompt) == tuple(parts)


@pytest.mark.parametrize("weight", ["101", "-100.5", "9" * 400])
def test_a_weight_that_is_far_too_large_is_refused(weight: str) -> None:
    with pytest.raises(InvalidRequest, match=r"has the weight .*between -100 and 100, 1 is usual"):
        split_and(f"a AND b :{weight}")


def test_a_long_prompt_of_nothing_but_separators_is_split_in_no_time() -> None:
    assert len(split_and("AND " * 4000)) == 4001
    assert split_and("a AND b" + " " * 16_000 + ":" * 100)[1].weight == 1.0


def test_the_rows_weigh_what_a1111_gives_them() -> None:
    assert guidance.weights(7.5, parts=(1.0,)) == guidance.weights(7.5) == (-6.5, 7.5)
    assert guidance.weights(4.0, parts=(1.0, 0.5)) == (-5.0, 4.0, 2.0)
    assert guidance.weights(1.0, parts=(1.0, 1.0)) == (-1.0, 1.0, 1.0)


def test_a_scale_below_one_counts_as_one_and_a_row_of_weight_zero_is_not_run() -> None:
    assert guidance.weights(0.0, parts=(1.0, 1.0)) == (-1.0, 1.0, 1.0)
    assert guidance.weights(1.0, parts=(0.25, 0.75)) == (0.25, 0.75)
    assert guidance.weights(1.0, parts=(0.1, 0.2, 0.7)) == (0.1, 0.2, 0.7)
    assert guidance.weights(2.0, parts=(0.25, 0.25)) == (0.5, 0.5)


def test_alone_the_parts_are_shares_of_their_sum() -> None:
    assert guidance.alone() == (1.0,)
    assert guidance.alone((1.0, 3.0)) == (0.25, 0.75)


def calls_of(**fields: Any) -> list[tuple[float, ...]]:
    request = Request(steps=4, guidance=2.0, **fields)
    return [tuple(call.weights) for call in unet_calls(plan_of(request), request)]


def test_outside_of_the_guidance_interval_the_parts_run_alone() -> None:
    rows = calls_of(prompt="a AND b", guidance_start=0.25, guidance_end=0.75)
    assert rows == [(0.5, 0.5), (-3.0, 2.0, 2.0), (-3.0, 2.0, 2.0), (0.5, 0.5)]


@pytest.mark.parametrize("prompt", ["a AND b :-1", "a :0.1 AND b :0.2 AND c :-0.3"])  # the latter by rounding alone
@pytest.mark.parametrize("field", [{"guidance_end": 0.5}, {"guidance_rescale": 0.7}])
def test_parts_that_cancel_out_are_refused_where_they_would_run_alone(field: dict[str, float], prompt: str) -> None:
    assert len(set(calls_of(prompt=prompt))) == 1
    assert set(calls_of(prompt="a AND b :-1")) == {(1.0, 2.0, -2.0)}
    with pytest.raises(InvalidRequest, match="the weights of its parts between ANDs add up to 0; must be above 0"):
        calls_of(prompt=prompt, **field)


def test_given_states_are_one_part_whatever_the_prompt_says() -> None:
    request = Request(prompt="a AND b", prompt_states=np.zeros((8, 4), np.float32))
    assert [part.weight for part in request.parts] == [1.0]


def test_composed_rows_are_rescaled_to_the_spread_of_the_parts_mean() -> None:
    output = np.random.default_rng(0).standard_normal((4, 4, 8, 8)).astype(np.float32)
    parts, phi = (1.0, 0.5, 0.5), 0.7
    (made,) = guidance.combine(output, [guidance.weights(4.0, phi, parts)])
    guided = output[0] + sum(4.0 * w * (row - output[0]) for w, row in zip(parts, output[1:], strict=True))
    mean = sum(w / 2 * row for w, row in zip(parts, output[1:], strict=True))
    expected = phi * guided * mean.std() / guided.std() + (1 - phi) * guided
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{}, {"sampler": "heun"}, {"guidance": 1.0}, {"guidance_start": 0.2, "guidance_end": 0.7, "sampler": "dpmpp_2m"}],
    ids=str,
)
def test_a_composed_picture_is_the_weighted_sum_of_single_runs_bit_for_bit(
    emoji: Model, changes: dict[str, Any]
) -> None:
    request = replace(COMPOSED, **changes)
    latents = paint(emoji, request).latents
    assert latents is not None
    assert np.array_equal(latents, by_hand(emoji, request))
    assert not np.array_equal(latents, by_hand(emoji, replace(request, prompt="a shark")))


@pytest.mark.parametrize(
    ("prompt", "place"), [*((COMPOSED.prompt, place) for place in range(len(OTHERS) + 1)), (LANGUAGE, 1)], ids=str
)
def test_a_composed_picture_is_bit_equal_alone_and_at_any_place_among_others(
    emoji: Model, prompt: str, place: int
) -> None:
    request = replace(COMPOSED, prompt=prompt)
    alone = paint(emoji, request)
    mixed = generate(widened(emoji), [*OTHERS[:place], request, *OTHERS[place:]])[place][0]
    assert same(alone, mixed)


def test_each_part_has_its_own_words_by_step_and_all_the_chunks_of_the_longest(emoji: Model) -> None:
    rows = emoji.start(replace(COMPOSED, prompt=LANGUAGE))[0].rows
    assert [len(row.texts) for row in rows] == [1, 2, 1]
    assert [len(row.texts[0]) for row in rows] == [2, 2, 2]
    assert rows[2].texts[0].weights.max() == np.float32(1.3)


@pytest.mark.parametrize("changes", [{"cache_interval": 3}, {"cache_interval": 2, "guidance_start": 0.4}], ids=str)
def test_step_caching_keeps_a_feature_of_each_part(tmp_path: Path, changes: dict[str, Any]) -> None:
    model, engines = fake_model(tmp_path, step_cache=True)
    request = Request(prompt="a cat AND a dog :0.5", steps=7, guidance=4.0, seed=3, return_latents=True, **changes)
    latents = paint(model, request).latents
    assert latents is not None
    assert np.array_equal(latents, by_hand(model, request))
    assert set(engines[UNET].calls) | set(engines[SHALLOW_UNET].calls) <= {1, 2, 3}


def test_the_rows_are_one_call_even_where_fewer_would_gain_most(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path)
    narrow = Model(model.manifest, model.digest, model.prompts, model.engines, dict.fromkeys(model.max_rows, 2))
    requests = [Request(prompt="a cat AND a dog AND a hat", steps=2), Request(prompt="red", steps=2)]
    generate(narrow, requests)
    assert sorted(engines[UNET].calls) == [2, 2, 4, 4]


def test_more_rows_than_the_bundle_was_built_for_are_refused_with_what_to_do(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    assert len(model.start(Request(prompt="a AND b AND a AND b AND a AND b AND a"))[0].rows) == 8
    with pytest.raises(
        InvalidRequest,
        match=r"prompt: its 8 parts between ANDs take 9 rows, but bundle fake was built for 8; leave some out or "
        r"compile again with `--max-rows 9`",
    ):
        model.start(Request(prompt=" AND ".join(["a"] * 8)))


def test_a_model_that_takes_guidance_as_an_input_runs_the_parts_alone() -> None:
    request = Request(prompt="a AND b :3", steps=2, guidance=8.0)
    calls = unet_calls(plan_of(request), request, takes_guidance=True)
    assert {tuple(call.weights) for call in calls} == {(0.25, 0.75)}
