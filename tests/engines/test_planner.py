"""What a request is told that it asked for and will not get."""

from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.request import Request
from tests.fakes import fake_model

NO_WEIGHT = "negative_prompt: is not looked at, since its row has no weight at guidance="


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Request(prompt="a cat", negative_prompt="a dog", guidance=7.5), ()),
        (Request(prompt="a cat", guidance=1.0), ()),
        (Request(prompt="a cat", negative_prompt="a dog", guidance=1.0), (f"{NO_WEIGHT}1",)),
        (Request(prompt="a cat", negative_prompt="a dog", guidance=0.5), (f"{NO_WEIGHT}0.5",)),
        (Request(prompt="a cat AND a hat", negative_prompt="a dog", guidance=1.0), ()),
        (Request(prompt="a :0.25 AND b :0.25", negative_prompt="a dog", guidance=2.0), (f"{NO_WEIGHT}2",)),
    ],
)
def test_a_negative_prompt_without_a_row_is_said_to_be_left_out(
    tmp_path: Path, request_: Request, said: tuple[str, ...]
) -> None:
    model, _ = fake_model(tmp_path)
    (image, *_) = model.start(request_)
    assert model.warnings(request_) == said
    if said:
        assert len(image.rows) == len(request_.parts)


def test_prompts_beside_states_are_said_to_be_left_out(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    text = model.manifest.text
    states = np.zeros((text.max_tokens, text.width), np.float32)
    both = Request(prompt="a cat", negative_prompt="a dog", prompt_states=states, negative_prompt_states=states)
    assert model.warnings(both) == (
        "prompt: is not looked at, since prompt_states are there in its place",
        "negative_prompt: is not looked at, since negative_prompt_states are there in its place",
    )
    assert model.warnings(Request(prompt_states=states, negative_prompt_states=states)) == ()
