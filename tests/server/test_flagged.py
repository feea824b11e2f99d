"""Pictures that a safety checker flags, over gRPC: marked, blurred or refused, and nothing shown before."""

import asyncio
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

from mezzotint import MezzotintClientError
from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.engines.component import Component
from mezzotint.engines.errors import BundleError
from mezzotint.engines.picture import parse_parameters, read_parameters
from mezzotint.engines.variants import FULL
from mezzotint.proto.aio import AsyncStream
from mezzotint.proto.results import Event, Picture
from mezzotint.server.config import CoreConfig, MetricsConfig, WatchConfig
from mezzotint.server.flagged import OnFlagged, blurred, check_bundle
from tests.conftest import Checked
from tests.fake_manifest import fake_manifest
from tests.server.conftest import Start, entered, eventually
from tests.server.real import serving
from tests.server.scraping import scrape

CHECKER = (Component.SAFETY_CHECKER, FULL)


def noise(*brightness: float) -> np.ndarray:
    """Initial noise of pictures that come out bright, which the fake checker flags, or dark."""
    grain = np.random.default_rng(0).standard_normal((len(brightness), 4, 8, 8)) / 4
    return (grain + np.array(brightness)[:, None, None, None]).astype(np.float32)


BRIGHT, DARK = -3.0, 3.0  # after two guided steps of the fake UNet


def pixels(picture: Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.data)))


async def follow(stream: AsyncStream, hear: Callable[[Event], None]) -> None:
    async for event in stream:
        hear(event)


async def test_each_picture_says_whether_it_was_flagged(start: Start) -> None:
    served = await start(safety_checker=True)
    result = await served.client.generate("a", steps=2, num_images=3, latents=noise(DARK, BRIGHT, DARK))
    assert [picture.flagged for picture in result.pictures] == [False, True, False]
    words = [parse_parameters(read_parameters(data)).get("Safety checker") for data in result.files]
    assert words == [None, "flagged", None]
    assert len(served.engines[CHECKER].calls) == 3
    (model,) = await served.client.models()
    assert "safety_checker" in [engine.component for engine in model.engines]


async def test_nothing_is_said_where_nothing_looked(start: Start) -> None:
    served = await start()
    result = await served.client.generate("a", steps=2, latents=noise(BRIGHT))
    assert result.pictures[0].flagged is None


async def test_a_flagged_picture_is_marked_and_else_as_it_is_without_a_checker(start: Start) -> None:
    options = {"steps": 2, "latents": noise(BRIGHT), "seed": 0, "preview_every": 1, "return_latents": True}
    plain = (await (await start()).client.generate("a", **options)).pictures[0]
    marked = (await (await start(safety_checker=True)).client.generate("a", **options)).pictures[0]
    assert np.array_equal(pixels(plain), pixels(marked))
    assert np.array_equal(plain.latents, marked.latents)  # type: ignore[arg-type]


async def test_a_blurred_picture_shows_nothing_and_its_latents_are_kept_back(start: Start) -> None:
    options = {"steps": 2, "num_images": 2, "latents": noise(BRIGHT, DARK), "return_latents": True}
    plain = await (await start()).client.generate("a", **options)
    result = await (await start(safety_checker=True, on_flagged=OnFlagged.BLUR)).client.generate("a", **options)
    hidden, shown = result.pictures
    assert (hidden.flagged, shown.flagged) == (True, False)
    assert parse_parameters(read_parameters(hidden.data))["Safety checker"] == "blurred"
    assert np.array_equal(pixels(hidden), blurred(pixels(plain.pictures[0])))
    assert not np.array_equal(pixels(hidden), pixels(plain.pictures[0]))
    assert hidden.latents is None
    assert shown.latents is not None
    assert np.array_equal(pixels(shown), pixels(plain.pictures[1]))


def test_two_pictures_with_one_mean_colour_to_the_square_blur_to_the_same() -> None:
    noisy = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    shuffled = noisy.reshape(8, 8, 8, 12, 3)[:, ::-1, :, ::-1].reshape(noisy.shape)
    assert blurred(noisy).shape == noisy.shape
    assert np.array_equal(blurred(noisy), blurred(np.ascontiguousarray(shuffled)))
    assert not np.array_equal(noisy, shuffled)


async def test_a_refused_picture_ends_its_request_in_one_sentence_and_frees_the_engine(start: Start) -> None:
    served = await start(safety_checker=True, on_flagged=OnFlagged.REFUSE)
    checker = served.engines[CHECKER]
    latents = noise(DARK, BRIGHT, *[DARK] * 18)
    events: list[Event] = []
    checker.hold()
    checker.step(2)  # the flagged one is the second
    with pytest.raises(MezzotintClientError) as refused:
        await follow(served.client.stream("a", steps=2, num_images=20, seed=5, latents=latents), events.append)
    assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.message == (
        "picture 1 (seed 6): was flagged by the safety checker, and this server gives no such pictures; "
        "change the prompt or the seed"
    )
    assert [event.image_index for event in events if isinstance(event, Picture)] == [0]
    checker.release()
    await eventually(lambda: served.core._scheduler.idle)
    assert len(checker.calls) <= 3  # one was being looked at
    assert (await served.client.generate("a", steps=2, latents=noise(DARK))).pictures[0].flagged is False


@pytest.mark.parametrize("on_flagged", list(OnFlagged))
async def test_flagged_pictures_are_counted_whatever_becomes_of_them(start: Start, on_flagged: OnFlagged) -> None:
    watch = WatchConfig(MetricsConfig(port=0))
    served = await start(safety_checker=True, on_flagged=on_flagged, watch=watch)
    for brightness in (BRIGHT, DARK):
        with contextlib.suppress(MezzotintClientError):
            await served.client.generate("a", steps=2, latents=noise(brightness))
    assert (await scrape(served.metrics_port))("mezzotint_flagged_images_total") == 1


@pytest.mark.parametrize("on_flagged", [OnFlagged.BLUR, OnFlagged.REFUSE])
async def test_previews_are_left_out_with_a_warning_where_they_could_leak(start: Start, on_flagged: OnFlagged) -> None:
    served = await start(safety_checker=True, on_flagged=on_flagged)
    seen: list[bytes] = []
    result = await served.client.generate(
        "a", steps=2, preview_every=1, latents=noise(DARK), on_progress=lambda progress: seen.append(progress.preview)
    )
    assert seen == [b""] * 2
    assert result.warnings == (
        "preview_every: this server shows nothing that its safety checker has not seen; there are no previews",
    )


async def test_a_checker_that_fails_fails_its_request_and_shows_nothing(start: Start) -> None:
    served = await start(safety_checker=True)
    served.engines[CHECKER].failures = 1
    with pytest.raises(MezzotintClientError) as failed:
        await served.client.generate("a", steps=2)
    assert failed.value.code is grpc.StatusCode.INTERNAL


async def test_denoising_goes_on_between_decoding_and_the_check(start: Start) -> None:
    served = await start(safety_checker=True)
    served.unet.log.clear()  # all engines write into it
    served.unet.hold()
    long = asyncio.create_task(served.client.generate("a", steps=6, guidance=1.0))
    await entered(served)
    short = asyncio.create_task(served.client.generate("a", steps=1, guidance=1.0))
    await eventually(lambda: bool(served.core._loop._inbox.qsize()))
    served.unet.release()
    await asyncio.gather(long, short)
    log = served.unet.log
    first = log.index("vae_decoder full")
    assert log[first : first + 3] == ["vae_decoder full", "unet full", "safety_checker full"]


@pytest.mark.parametrize(
    "on_flagged", [pytest.param(OnFlagged.MARK, marks=pytest.mark.slow), OnFlagged.BLUR, OnFlagged.REFUSE]
)
async def test_a_real_checkpoints_pictures_are_checked_on_their_way_to_a_file(
    checked: Checked,
    checked_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    on_flagged: OnFlagged,
) -> None:
    files = [tmp_path / f"{seed}.png" for seed in (1, 2, 3)]
    settings = ["--steps", str(checked.request["steps"]), "--guidance", str(checked.request["guidance"])]
    async with serving(checked_bundle, CoreConfig(on_flagged=on_flagged)) as (_, address):
        asked = [["generate", "a cat", "--server", address, *settings, "--seed", f.stem, "-o", str(f)] for f in files]
        codes = [await asyncio.to_thread(run, cli, words) for words in asked]
    said = capsys.readouterr()
    hide = blurred if on_flagged is OnFlagged.BLUR else np.asarray
    wanted = [hide(checked.pictures[0]), hide(checked.pictures[1]), checked.pictures[2]]
    if on_flagged is OnFlagged.REFUSE:
        assert codes == [5, 5, 0]
        assert "picture 0 (seed 2): was flagged by the safety checker" in said.err
        files, wanted = files[2:], wanted[2:]
    else:
        assert codes == [0, 0, 0]
        assert said.out.count("flagged by the safety checker") == 2
    for file, picture in zip(files, wanted, strict=True):
        assert np.array_equal(np.asarray(Image.open(file)), picture)


@pytest.mark.parametrize("on_flagged", [OnFlagged.BLUR, OnFlagged.REFUSE])
def test_unchecked_pictures_are_not_served_where_flagged_ones_must_not_be_shown(on_flagged: OnFlagged) -> None:
    check_bundle(fake_manifest(), OnFlagged.MARK)
    check_bundle(fake_manifest(safety_checker=True), on_flagged)
    with pytest.raises(BundleError, match=f"bundle fake has no safety checker, so `--on-flagged {on_flagged}` would"):
        check_bundle(fake_manifest(), on_flagged)
