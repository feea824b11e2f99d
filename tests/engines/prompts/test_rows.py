"""What an image's rows say at each step: schedules, padding to one length, and refusals before any engine runs."""

from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.batch import Batch
from mezzotint.engines.errors import InvalidRequest, MezzotintError, ShapeNotCompiled
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.image import Image
from mezzotint.engines.model import Model
from mezzotint.engines.prompts.rows import MAX_CHUNKS, num_chunks
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import SAMPLERS, get_sampler, plan
from tests.fake_manifest import TOKENS, WIDTH, fake_manifest
from tests.fakes import fake_model

ROOM = TOKENS - 2


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return fake_model(tmp_path)[0]


def texts_seen(model: Model, request: Request) -> list[np.ndarray]:
    """Return the UNet's text input at each evaluation of a request's one image."""
    (image,) = model.start(request)
    seen = []
    run_call(model, Batch((image,)))
    while image.remaining:
        seen.append(Batch((image,)).inputs()["text"].copy())
        run_call(model, Batch((image,)))
    return seen


def states_of(model: Model, prompt: str) -> np.ndarray:
    return texts_seen(model, Request(prompt=prompt, steps=1, guidance=1.0))[0][0]


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_sde", "pndm"])
def test_all_evaluations_of_a_users_step_see_its_text(model: Model, sampler: str) -> None:
    request = Request(prompt="a [cat:dog:2] [red|blue]", steps=5, guidance=1.0, sampler=sampler)
    texts = ["a cat red", "a cat blue", "a dog red", "a dog blue", "a dog red"]
    expected = [states_of(model, text) for text in texts]
    (image,) = model.start(request)
    steps = [0, *image.plan.steps[:-1].tolist()]
    seen = texts_seen(model, request)
    assert len(seen) == image.plan.num_evaluations >= 5
    for step, (text,) in zip(steps, seen, strict=True):
        np.testing.assert_array_equal(text, expected[step])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_evaluation_lies_behind_the_last_step(model: Model, sampler: str) -> None:
    found, levels = get_sampler(sampler, "")
    for steps in (4, 7, 20):
        the_plan = plan(found, model.manifest.schedule.noise_schedule(), steps, sigmas=levels)
        assert max([0, *the_plan.steps[:-1].tolist()]) < steps


def test_both_rows_have_the_chunks_of_the_longer_prompt(model: Model) -> None:
    long = "a cat on a red hat " * 2
    for request in (Request(prompt=long), Request(negative_prompt=long), Request(prompt=f"[a:{long}:5]")):
        (image,) = model.start(request)
        assert {text.ids.shape for row in image.rows for text in row.texts} == {(2, TOKENS)}
        assert {row.num_tokens for row in image.rows} == {2 * TOKENS}


def test_images_share_denoising_calls_by_their_number_of_chunks(model: Model) -> None:
    short, other, long = (model.start(Request(prompt=prompt))[0] for prompt in ("a", "a dog", "a BREAK cat"))
    assert short.signature == other.signature == long.signature  # the text encoder's rows are all alike
    model.encode(Batch((short, other, long)))
    assert short.signature == other.signature != long.signature
    assert Batch((long,)).inputs()["text"].shape == (2, 2 * TOKENS, WIDTH)


def test_a_clients_states_may_be_as_long_as_a_prompt(model: Model) -> None:
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((3 * TOKENS, WIDTH), np.float32) for _ in range(2)]
    request = Request(prompt_states=states[1], negative_prompt_states=states[0], steps=2)
    for seen in texts_seen(model, request):
        np.testing.assert_array_equal(seen, states)


def refused(model: Model, **fields: object) -> MezzotintError:
    with pytest.raises(MezzotintError) as refusal:
        model.start(Request(**fields))  # type: ignore[arg-type]
    return refusal.value


def test_a_prompt_that_is_too_long_is_refused_with_what_would_do(model: Model) -> None:
    for field in ("prompt", "negative_prompt"):
        error = refused(model, **{field: "cat " * (3 * ROOM + 1)})
        assert isinstance(error, ShapeNotCompiled)
        assert str(error) == (
            f"{field}: fills 4 chunks of {ROOM} tokens, but bundle fake was built for 3; shorten it, or compile again "
            "with `--max-chunks 4`"
        )
    assert not model.warnings(Request(prompt="cat " * 3 * ROOM))


def test_a_bundle_of_fixed_tokens_says_so(tmp_path: Path) -> None:
    manifest = fake_manifest()
    engines = tuple(
        entry.model_copy(update={"axes": {name: axis for name, axis in entry.axes.items() if name != "tokens"}})
        for entry in manifest.engines
    )
    model, _ = fake_model(tmp_path, bundle=(manifest.model_copy(update={"engines": engines}), "f" * 64))
    assert "fills 2 chunks of 6 tokens, but bundle fake was built for 1;" in str(refused(model, prompt="a BREAK cat"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": "(cat:1000)"}, "prompt: the weight 1000 of 'cat' must be between -100 and 100;"),
        ({"negative_prompt": "(" * 65}, "negative_prompt: brackets are nested more than 64 deep"),
        ({"prompt": "[a|b]" * 65}, "prompt: more than 64 of its brackets change with the steps"),
        ({"clip_skip": 2}, "clip_skip=2: must be between 0 and 1, the last layers of the text encoder"),
        ({"clip_skip": -1}, "clip_skip=-1: must be between 0 and 1"),
    ],
)
def test_what_no_engine_could_do_is_refused(model: Model, fields: dict[str, object], message: str) -> None:
    error = refused(model, **fields)
    assert isinstance(error, InvalidRequest)
    assert str(error).startswith(message)


def test_more_texts_than_one_request_may_have_encoded_are_refused(model: Model) -> None:
    seven, five, three = "[a|cat|dog|red|blue|on|hat]", "[a|cat|dog|red|blue]", "[on|hat|red]"
    assert str(refused(model, prompt=f"{seven} {five} {three}", steps=100)) == (
        f"prompt: has 100 different texts over its steps; the limit is {MAX_CHUNKS}, let fewer words change"
    )
    assert str(refused(model, prompt=f"{seven} {five} BREAK on {seven} {five}", steps=50)) == (
        f"prompt: its texts over all steps fill 72 chunks; the limit is {MAX_CHUNKS}, let fewer words change"
    )


def test_states_that_are_no_whole_chunks_or_unlike_are_refused(model: Model) -> None:
    one, two = (np.zeros((n * TOKENS, WIDTH), np.float32) for n in (1, 2))
    assert "negative_prompt_states: is float32 [8, 4]; must be float32 [16, 4]" in str(
        refused(model, prompt_states=two, negative_prompt_states=one)
    )
    for wrong in (two[:9], np.zeros((4 * TOKENS, WIDTH), np.float32), np.zeros((), np.float32), two[:, :3]):
        assert "prompt_states: is float32" in str(refused(model, prompt_states=wrong, guidance=1.0))


def test_states_beside_a_text_of_another_length_are_refused(model: Model) -> None:
    states = np.zeros((TOKENS, WIDTH), np.float32)
    error = refused(model, prompt="a BREAK cat AND dog", guidance=1.0, negative_prompt_states=states)
    assert isinstance(error, InvalidRequest)
    assert str(error).startswith("prompt: its rows have 8 and 16 tokens, as states and as texts; send states for each")
    model.start(Request(prompt="a cat AND dog", guidance=1.0, negative_prompt_states=states))


def test_a_schedule_that_changes_nothing_is_the_plain_prompt(model: Model) -> None:
    plain, scheduled = ([*generate(model, [Request(prompt=p, steps=3)])[0]] for p in ("a cat", "a [dog:cat:0]"))
    assert all(map(_same, plain, scheduled))
    assert num_chunks(plain[0].rows) == num_chunks(scheduled[0].rows) == 2


def _same(a: Image, b: Image) -> bool:
    assert a.pixels is not None
    assert b.pixels is not None
    return np.array_equal(a.pixels, b.pixels)


@pytest.mark.parametrize("text", ["a cat", "a (cat) [red:dog:1] BREAK a hat", "a cat on a red hat, on a dog " * 9])
def test_a_plain_prompt_is_the_first_chunk_of_its_text_as_it_stands(model: Model, text: str) -> None:
    (row,) = model.start(Request(prompt=model.prompts.plain(text), guidance=1.0))[0].rows
    ids = model.prompts._tokenizer.encode(text, add_special_tokens=False).ids[:ROOM]
    assert row.texts[0].ids[0, 1 : 1 + len(ids)].tolist() == ids
    assert len(row.texts) == len(row.texts[0]) == 1
    assert (row.texts[0].weights == 1).all()
