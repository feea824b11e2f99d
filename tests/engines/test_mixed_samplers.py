"""Pictures of all samplers share calls, those with two evaluations a step and with noise among them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mezzotint.engines.batch import Batch
from mezzotint.engines.generate import generate, run_call
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.sampling import SAMPLERS
from tests.fakes import fake_model

# two evaluations a step, noise in one or both of them, history, and a longer beginning
UNALIKE = ("heun", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_2m_sde", "unipc")


def requests_of(samplers: Sequence[str], steps: int) -> list[Request]:
    return [
        Request(
            prompt="a cat",
            sampler=name,
            steps=steps + i % 3,
            guidance=float(i % 4),
            seed=i,
            eta=0.4 if SAMPLERS[name].takes_eta else 0.0,
            return_latents=True,
        )
        for i, name in enumerate(samplers)
    ]


def assert_same(together: list[list[Image]], alone: list[list[Image]]) -> None:
    for (one,), (other,) in zip(together, alone, strict=True):
        assert one.latents is not None
        assert other.latents is not None
        assert np.isfinite(one.latents).all()
        assert one.latents.tobytes() == other.latents.tobytes()
        assert np.array_equal(one.pixels, other.pixels)  # type: ignore[arg-type]


def test_every_sampler_gives_the_same_picture_alone_and_among_all_others(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    requests = requests_of(list(SAMPLERS), 5)
    assert_same(generate(model, requests), generate(model, requests, together=False))


def test_a_call_takes_first_and_second_evaluations_of_a_step_at_once(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path)
    images = [model.start(request)[0] for request in requests_of(("heun", "dpmpp_sde", "euler_a"), 4)]
    for image in images:
        run_call(model, Batch((image,)))
    run_call(model, Batch((images[0],)))  # the first is now half a step ahead of the others
    assert [image.evaluation for image in images] == [1, 0, 0]
    run_call(model, Batch(tuple(images)))
    assert [image.evaluation for image in images] == [2, 1, 1]
    assert [image.step for image in images] == [1, 0, 1]
    assert {image.stage for image in images} == {Stage.DENOISE}


def test_a_compiled_bundle_paints_unalike_samplers_alike_alone_and_together(emoji: Model) -> None:
    requests = requests_of(UNALIKE, 2)
    assert_same(generate(emoji, requests), generate(emoji, requests, together=False))


@pytest.mark.slow
def test_a_compiled_bundle_paints_every_sampler_alike_alone_and_together(emoji: Model) -> None:
    requests = requests_of(list(SAMPLERS), 10)
    assert_same(generate(emoji, requests), generate(emoji, requests, together=False))
