"""Triton's client against `mezzotint serve` with the demo model, each in a process of its own."""

import queue
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import InferenceServerException

from mezzotint import Client
from mezzotint.engines.picture import encode_picture
from tests.cli.conftest import started
from tests.server.kserve.conftest import inputs, outputs

PROMPT = "a shark on a blue background"
VALUES = {"STEPS": 5, "GUIDANCE_SCALE": 4.0, "SEED": 42}
OWN = {"steps": 5, "guidance": 4.0, "seed": 42}


@pytest.fixture(scope="module")
def own(address: str) -> tuple[bytes, np.ndarray]:
    """The file and the pixels that our own client gets."""
    with Client(address) as client:
        result = client.generate(PROMPT, **OWN)
        return result.files[0], np.asarray(result.images[0])


def test_text_to_image_is_the_picture_of_our_own_client_byte_by_byte(
    address: str, own: tuple[bytes, np.ndarray]
) -> None:
    with triton.InferenceServerClient(address) as client:
        pixels = client.infer("emoji", inputs(PROMPT, **VALUES)).as_numpy("IMAGES")
        np.testing.assert_array_equal(pixels, [own[1]])
        both = client.infer("emoji", inputs(PROMPT, **VALUES), outputs=outputs("FILES", "IMAGES"))
        assert both.as_numpy("FILES").tolist() == [own[0]]
        np.testing.assert_array_equal(both.as_numpy("IMAGES"), [own[1]])


def test_an_initial_picture_comes_as_a_file_in_a_tensor(address: str, own: tuple[bytes, np.ndarray]) -> None:
    mask = encode_picture(np.tile(np.array([0, 255], np.uint8).repeat(32)[None, :, None], (64, 1, 3)))
    with Client(address) as client:
        wanted = client.generate(PROMPT, **OWN, image=own[0], strength=0.4, mask=mask).images[0]
    sent = inputs(PROMPT, **VALUES, STRENGTH=0.4, INIT_IMAGE=own[0], MASK=mask)
    with triton.InferenceServerClient(address) as client:
        np.testing.assert_array_equal(client.infer("emoji", sent).as_numpy("IMAGES"), [np.asarray(wanted)])


@pytest.mark.parametrize("varied", [{}, {"subseed": 8, "subseed_strength": 0.3}], ids=["seeds", "subseeds"])
def test_several_pictures_are_those_of_our_own_client_byte_by_byte(address: str, varied: dict[str, float]) -> None:
    with Client(address) as client:
        own = client.generate(PROMPT, **OWN, **varied, num_images=2)
    sent = inputs(PROMPT, **VALUES, SAMPLES=2, **{name.upper(): value for name, value in varied.items()})
    with triton.InferenceServerClient(address) as client:
        made = client.infer("emoji", sent, outputs=outputs("FILES", "SEEDS"))
    assert made.as_numpy("FILES").tolist() == own.files
    assert made.as_numpy("SEEDS").tolist() == own.seeds == ([42, 42] if varied else [42, 43])


def test_a_stream_tells_steps_and_the_same_picture_and_is_cancelled(
    address: str, own: tuple[bytes, np.ndarray]
) -> None:
    told: queue.Queue[tuple[triton.InferResult, Exception | None]] = queue.Queue()
    with triton.InferenceServerClient(address) as client:
        client.start_stream(lambda result, error: told.put((result, error)))
        sent = inputs(PROMPT, **VALUES, PREVIEW_EVERY=1)
        client.async_stream_infer("emoji_stream", sent, request_id="a", enable_empty_final_response=True)
        results = []
        while not results or not results[-1].get_response().parameters["triton_final_response"].bool_param:
            result, error = told.get(timeout=60)
            assert error is None
            results.append(result)
        assert [int(result.as_numpy("STEP")[0]) for result in results[:-2]] == [1, 2, 3, 4, 5]
        assert all(result.as_numpy("PREVIEW")[0].startswith(b"\xff\xd8") for result in results[:-2])
        np.testing.assert_array_equal(results[-2].as_numpy("IMAGES"), [own[1]])
        client.async_stream_infer("emoji_stream", inputs(PROMPT, STEPS=900), request_id="b")
        told.get(timeout=60)
        client.stop_stream(cancel_requests=True)
        until = time.monotonic() + 20
        while not (stats := client.get_inference_statistics("emoji").model_stats[0]).inference_stats.fail.count:
            assert time.monotonic() < until, "the request was never taken back"
            time.sleep(0.02)
        assert stats.execution_count < 900


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux has shared memory as files")
def test_arrays_go_to_and_fro_in_shared_memory(address: str, own: tuple[bytes, np.ndarray]) -> None:
    num_bytes = own[1].nbytes
    region = shm.create_shared_memory_region("pictures", f"/mezzotint-{uuid.uuid4().hex}", num_bytes)
    (wanted,) = outputs("IMAGES")
    wanted.set_shared_memory("pictures", num_bytes)
    try:
        with triton.InferenceServerClient(address) as client:
            client.register_system_shared_memory("pictures", region._shm_key, num_bytes)
            client.infer("emoji", inputs(PROMPT, **VALUES), outputs=[wanted])
            np.testing.assert_array_equal(shm.get_contents_as_numpy(region, np.uint8, own[1].shape), own[1])
            client.unregister_system_shared_memory("pictures")
    finally:
        shm.destroy_shared_memory_region(region)


def test_the_model_is_unloaded_and_loaded_again_by_name(address: str, own: tuple[bytes, np.ndarray]) -> None:
    with triton.InferenceServerClient(address) as client:
        client.unload_model("emoji")
        assert not client.is_model_ready("emoji_stream")
        assert [(m.name, m.state) for m in client.get_model_repository_index().models] == [("emoji", "")]
        client.load_model("emoji")
        assert client.is_model_ready("emoji_stream")
        np.testing.assert_array_equal(client.infer("emoji", inputs(PROMPT, **VALUES)).as_numpy("IMAGES")[0], own[1])


@pytest.mark.slow
def test_a_server_that_is_told_so_speaks_our_own_protocol_alone(emoji_bundle: Path) -> None:
    with started(emoji_bundle, "--no-kserve") as (_, target), triton.InferenceServerClient(target) as client:
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
            client.is_server_live()
        with Client(target) as own:
            assert [model.name for model in own.models()] == ["emoji"]
