"""An initial picture's own call in the queue: after the prompt's, before the first step, beside everybody else's."""

import io
from pathlib import Path

import pytest
from PIL import Image as Picture

from mezzotint.engines.batch import Batch
from mezzotint.engines.component import Component
from mezzotint.engines.errors import EngineFailed
from mezzotint.engines.generate import run_call
from mezzotint.engines.hires import Hires
from mezzotint.engines.image import Image, Stage
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from mezzotint.engines.start import Start
from mezzotint.engines.variants import FULL, PICTURE
from mezzotint.server.ray.door import rows_of
from mezzotint.server.scheduler import Scheduler
from mezzotint.server.ticket import Outcome
from tests.fakes import fake_model
from tests.server.scheduling import make_scheduler


def start(strength: float = 0.5) -> Start:
    file = io.BytesIO()
    Picture.new("RGB", (32, 32), "red").save(file, "png")
    return Start(image=file.getvalue(), strength=strength)


def call(model: Model, scheduler: Scheduler) -> Batch:
    """Make the scheduler's next call, as the engine loop does."""
    batch = scheduler.next_batch(0.0)
    try:
        run_call(model, batch)
    except EngineFailed:
        scheduler.fail()
    else:
        scheduler.settle(batch, 0.0)
    return batch


def test_pictures_of_two_requests_are_encoded_in_one_call_and_then_all_denoise_together(tmp_path: Path) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True)
    scheduler = make_scheduler()
    images: list[Image] = []
    for beginning in (start(), start(0.75), Start()):
        ticket = scheduler.submit(model.start(Request(prompt="a cat", steps=4, start=beginning)), arrival=0.0)
        images += ticket.images
    calls = []
    while not scheduler.idle:
        batch = scheduler.next_batch(0.0)
        calls.append(((batch.stage, batch.variant), len(batch.images)))
        run_call(model, batch)
        scheduler.settle(batch, 0.0)
    assert calls[:3] == [((Stage.ENCODE, FULL), 3), ((Stage.ENCODE, PICTURE), 2), ((Stage.DENOISE, FULL), 3)]
    assert [len(image.calls) for image in images] == [2, 3, 4]
    assert {image.stage for image in images} == {Stage.DONE}


def test_a_request_that_is_cancelled_between_its_encoders_leaves_once(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    scheduler = make_scheduler()
    ticket = scheduler.submit(model.start(Request(steps=4, start=start())), arrival=0.0)
    call(model, scheduler)
    assert ticket.images[0].variant == PICTURE
    scheduler.cancel(ticket)
    scheduler.drop(0.0)
    assert [departure.outcome for departure in scheduler.departures()] == [Outcome.CANCELLED]
    assert scheduler.idle
    assert not engines[Component.VAE_ENCODER, FULL].calls


def test_an_encoder_that_fails_takes_its_own_pictures_along_and_no_others(tmp_path: Path) -> None:
    model, engines = fake_model(tmp_path, vae_encoder=True)
    scheduler = make_scheduler()
    failing = scheduler.submit(model.start(Request(steps=4, start=start())), arrival=0.0)
    plain = scheduler.submit(model.start(Request(steps=4)), arrival=0.0)
    engines[Component.VAE_ENCODER, FULL].failures = 1
    while not scheduler.idle:
        call(model, scheduler)
    left = {departure.ticket: departure.outcome for departure in scheduler.departures()}
    assert left == {failing: Outcome.FAILED, plain: Outcome.FINISHED}


@pytest.mark.parametrize(("strength", "rows"), [(0.5, 10), (1.0, 20)])
def test_ray_s_router_counts_the_steps_that_are_made(strength: float, rows: int) -> None:
    assert rows_of(Request(steps=10, guidance=3.0, start=start(strength))) == rows


@pytest.mark.parametrize(
    "asked",
    [Request(steps=4, start=start()), Request(steps=2, hires=Hires(2.0, 3, 0.5, "lanczos"))],
    ids=["initial picture", "hires"],
)
def test_a_picture_that_is_encoded_again_is_in_the_making_all_the_while(tmp_path: Path, asked: Request) -> None:
    model, _ = fake_model(tmp_path, vae_encoder=True)
    scheduler = make_scheduler(max_started_images=1)
    (first,) = scheduler.submit(model.start(asked), arrival=0.0).images
    scheduler.submit(model.start(Request(steps=4)), arrival=0.0)
    call(model, scheduler)
    while first.stage is not Stage.DONE:
        assert (scheduler.num_started, scheduler.num_waiting) == (1, 1)
        assert call(model, scheduler).images == (first,)
