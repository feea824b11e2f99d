"""A bundle under the real tritonserver: our scheduler and core inside its python backend."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from mezzotint import Client
from mezzotint.engines.bundle import LoadOptions, open_bundle
from mezzotint.engines.embedding_file import EmbeddingPath
from mezzotint.engines.generate import generate
from mezzotint.engines.model import Model
from mezzotint.engines.request import Request
from tests.server.real import serving
from tests.server.triton.asking import eventually, inputs, names_of, outputs, streaming
from tests.server.triton.environment import Triton

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PROMPT = "a shark on a blue background"
CANCELLED = 'mezzotint_images_total{model="emoji",outcome="cancelled"}'
FINISHED = 'mezzotint_images_total{model="emoji",outcome="finished"}'


def of_rows(scraped: dict[str, float], what: str) -> float:
    return scraped.get(f'mezzotint_step_rows_{what}{{model="emoji",variant="full"}}', 0.0)


async def test_files_are_those_of_our_own_server_byte_by_byte(
    connection: client.InferenceServerClient, emoji_bundle: Path
) -> None:
    asked = {"steps": 6, "seed": 7, "guidance_scale": 4.0, "samples": 2, "scheduler": "Euler a"}
    result = connection.infer("emoji", inputs(PROMPT, **asked), outputs=outputs("FILES", "IMAGES", "SEEDS"))
    async with serving(emoji_bundle) as (_, target):

        def ours() -> list[bytes]:
            with Client(target) as own:
                made = own.generate(PROMPT, steps=6, seed=7, guidance=4, num_images=2, sampler="Euler a")
            return made.files

        files = await asyncio.to_thread(ours)
    assert list(result.as_numpy("FILES")) == files
    assert result.as_numpy("SEEDS").tolist() == [7, 8]
    assert result.as_numpy("IMAGES").shape == (2, 64, 64, 3)


def test_a_model_that_is_asked_for_nothing_by_name_gives_all_it_has(
    connection: client.InferenceServerClient, emoji: Model
) -> None:
    result = connection.infer("emoji", inputs(PROMPT, steps=3, seed=1, guidance_scale=4.0))
    assert names_of(result) == {"IMAGES", "FILES", "SEEDS", "FLAGGED", "TIMINGS_MS", "LATENTS"}
    ((image,),) = generate(emoji, [Request(prompt=PROMPT, steps=3, seed=1, guidance=4.0)])
    assert image.pixels is not None
    assert np.array_equal(result.as_numpy("IMAGES")[0], image.pixels)
    assert result.as_numpy("FLAGGED").tolist() == [-1]
    assert (result.as_numpy("TIMINGS_MS")[0, 1:] > 0).all()


def test_a_word_of_a_file_is_read_from_it(
    connection: client.InferenceServerClient, emoji_bundle: Path, word: EmbeddingPath
) -> None:
    asked = {"steps": 3, "seed": 1}
    plain, ours = (connection.infer("emoji", inputs(text, **asked)).as_numpy("IMAGES")[0] for text in ("a cat", "grim"))
    model = open_bundle(emoji_bundle, LoadOptions(devices={}, cache=False, embeddings=(word,)))
    ((image,),) = generate(model, [Request(prompt="grim", **asked)])
    model.close()
    assert np.array_equal(ours, image.pixels)
    assert not np.array_equal(ours, plain)


def test_a_stream_gives_each_step_then_the_picture(served: Triton, emoji: Model) -> None:
    with streaming(served.grpc) as stream:
        stream.ask("emoji_stream", "IMAGES", "STEP", "IMAGE_INDEX", prompt=PROMPT, steps=4, seed=3)
        *steps, picture = stream.until_the_end()
    assert [int(step.as_numpy("STEP")[0]) for step in steps] == [1, 2, 3, 4]
    assert all(names_of(step) == {"STEP", "IMAGE_INDEX"} for step in steps)
    assert names_of(picture) == {"IMAGES", "IMAGE_INDEX"}
    ((image,),) = generate(emoji, [Request(prompt=PROMPT, steps=4, seed=3)])
    assert image.pixels is not None
    assert np.array_equal(picture.as_numpy("IMAGES")[0], image.pixels)


def test_previews_come_in_a_stream_where_they_are_asked_for(served: Triton) -> None:
    with streaming(served.grpc) as stream:
        stream.ask("emoji_stream", "IMAGES", "STEP", "PREVIEW", steps=4, seed=3, preview_every=2)
        *steps, _ = stream.until_the_end()
    files = [step.as_numpy("PREVIEW")[0] for step in steps if "PREVIEW" in names_of(step)]
    assert len(files) == 2
    assert all(file.startswith(b"\xff\xd8") for file in files)


def test_sixteen_clients_share_steps(served: Triton) -> None:
    before = served.scraped()

    def ask(seed: int) -> np.ndarray:
        with client.InferenceServerClient(served.grpc) as own:
            return own.infer("emoji", inputs(steps=20, seed=seed, guidance_scale=1.0)).as_numpy("IMAGES")

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(ask, range(16)))
    alone = ask(5)
    assert np.array_equal(made[5], alone)
    assert len({image.tobytes() for image in made}) == 16

    def counted() -> bool:
        return served.scraped()[FINISHED] - before.get(FINISHED, 0.0) == 17

    eventually(counted)
    after = served.scraped()
    calls, rows = (of_rows(after, what) - of_rows(before, what) for what in ("count", "sum"))
    assert rows == 17 * 20
    assert rows / calls > 1.5  # a picture alone has one: it is not guided


@pytest.mark.parametrize("model", ["emoji", "emoji_stream"])
def test_a_client_that_goes_away_takes_its_request_back(served: Triton, model: str) -> None:
    before = served.scraped().get(CANCELLED, 0.0)
    if model == "emoji":
        with client.InferenceServerClient(served.grpc) as own:
            call = own.async_infer(model, inputs(steps=900), callback=lambda result, error: None)
            time.sleep(0.5)
            call.cancel()
    else:
        with streaming(served.grpc) as stream:
            stream.ask(model, "IMAGES", "STEP", steps=900)
            assert stream.next().as_numpy("STEP").tolist() == [1]
            stream.cancel()
    eventually(lambda: served.scraped().get(CANCELLED, 0.0) == before + 1, seconds=5)


def test_a_bad_request_gets_our_sentence_and_its_status(
    served: Triton, connection: client.InferenceServerClient
) -> None:
    with pytest.raises(InferenceServerException, match="steps=0: must be between 1 and") as refusal:
        connection.infer("emoji", inputs(steps=0))
    assert refusal.value.status() == "StatusCode.INVALID_ARGUMENT"
    with streaming(served.grpc) as stream:
        stream.ask("emoji_stream", "IMAGES", steps=0)
        with pytest.raises(InferenceServerException, match="steps=0: must be between 1 and"):
            stream.next()


def test_a_timeout_that_cannot_be_met_is_refused_at_once(connection: client.InferenceServerClient) -> None:
    connection.infer("emoji", inputs(steps=2))
    with pytest.raises(InferenceServerException, match="the deadline is in"):
        connection.infer("emoji", inputs(steps=900), timeout=50_000)


def test_models_are_unloaded_and_loaded_again(connection: client.InferenceServerClient) -> None:
    connection.unload_model("emoji_stream")
    eventually(lambda: not connection.is_model_ready("emoji_stream"))
    with pytest.raises(InferenceServerException, match="emoji_stream") as refusal:
        connection.infer("emoji", inputs(steps=2))
    assert refusal.value.status() == "StatusCode.UNAVAILABLE"
    connection.load_model("emoji_stream")
    assert connection.is_model_ready("emoji_stream")
    assert names_of(connection.infer("emoji", inputs(steps=2), outputs=outputs("SEEDS"))) == {"SEEDS"}


def test_figures_go_on_when_a_model_is_loaded_again(served: Triton, connection: client.InferenceServerClient) -> None:
    def left() -> float:
        return served.scraped().get(FINISHED, 0.0)

    def only_one_is_loaded() -> bool:
        log = served.log.read_text(encoding="utf-8")
        loaded, unloaded = (log.count(f"successfully {done} 'emoji_stream'") for done in ("loaded", "unloaded"))
        return loaded == unloaded + 1

    before = left()
    for _ in range(2):
        connection.infer("emoji", inputs(steps=2))
        connection.unload_model("emoji_stream")
        eventually(lambda: not connection.is_model_ready("emoji_stream"))
        connection.load_model("emoji_stream")
    connection.infer("emoji", inputs(steps=2))  # the new process counts, and an old one may still be ending
    eventually(only_one_is_loaded)
    connection.infer("emoji", inputs(steps=2))
    eventually(lambda: left() >= before + 4)


def test_tritons_own_figures_count_both_models(served: Triton, connection: client.InferenceServerClient) -> None:
    connection.infer("emoji", inputs(steps=2))
    wanted = [f'nv_inference_request_success{{model="{model}",version="1"}}' for model in ("emoji", "emoji_stream")]
    wanted.append('mezzotint_engine_seconds_total{model="emoji",stage="denoise"}')
    # counted once the stream's last, empty response has gone, after the picture's
    eventually(lambda: all(served.scraped().get(name, 0.0) > 0 for name in wanted))


def test_the_exported_configurations_are_what_triton_has(connection: client.InferenceServerClient) -> None:
    config = connection.get_model_config("emoji_stream").config
    assert config.model_transaction_policy.decoupled
    assert config.max_batch_size == 0
    assert {i.name for i in config.input if not i.optional} == {"PROMPT"}
    assert not connection.get_model_config("emoji").config.model_transaction_policy.decoupled
