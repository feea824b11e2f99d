"""System shared memory: what is taken, what is refused, and arrays that go through it by tritonclient's helpers."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import serialized_byte_size

from mezzotint.engines.errors import InvalidRequest, ModelNotFound, RequestIdTaken, Unsupported
from mezzotint.server.config import KserveConfig
from mezzotint.server.kserve.memory import Place, Regions
from tests.server.kserve.conftest import Begin, Triton, inputs, outputs

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="only Linux has shared memory as files")


@pytest.fixture
def key() -> Iterator[str]:
    """The key of a shared memory object of 64 bytes, 0 to 63."""
    name = f"mezzotint-test-{uuid.uuid4().hex}"
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(range(64)))
    yield f"/{name}"
    path.unlink(missing_ok=True)


@pytest.fixture
def regions(key: str) -> Iterator[Regions]:
    """One region, ``a``, of the bytes 8 to 39."""
    made = Regions(is_open=True, max_bytes=1000)
    made.register("a", key, 8, 32, is_local=True)
    yield made
    made.close()


def test_a_place_is_read_and_written_where_it_lies(regions: Regions, key: str) -> None:
    assert regions.read("x", Place("a", 4, 3)) == bytes([12, 13, 14])
    regions.write("x", Place("a", 30, 2), b"\xff\xfe")
    assert (Path("/dev/shm") / key.lstrip("/")).read_bytes()[37:41] == b"\x25\xff\xfe\x28"


@pytest.mark.parametrize("place", [Place("a", 0, 33), Place("a", 32, 1), Place("a", -1, 2), Place("a", 2**63, 2**63)])
def test_a_place_outside_its_region_is_refused(regions: Regions, place: Place) -> None:
    with pytest.raises(InvalidRequest, match=r"x: .* do not lie inside region 'a' of 32 bytes"):
        regions.read("x", place)
    with pytest.raises(InvalidRequest, match=r"x: .* do not lie inside region 'a'"):
        regions.write("x", place, b"")


def test_an_object_that_became_shorter_is_an_error_and_no_end_of_the_server(regions: Regions, key: str) -> None:
    os.truncate(Path("/dev/shm") / key.lstrip("/"), 10)
    with pytest.raises(InvalidRequest, match="x: its shared memory has become shorter than 4 bytes"):
        regions.read("x", Place("a", 0, 4))
    with pytest.raises(InvalidRequest, match="x: its shared memory has become shorter than 4 bytes"):
        regions.write("x", Place("a", 0, 4), b"1234")
    assert (Path("/dev/shm") / key.lstrip("/")).stat().st_size == 10


def test_what_does_not_fit_is_not_written(regions: Regions) -> None:
    with pytest.raises(InvalidRequest, match="x: has 5 bytes; its shared memory holds 4"):
        regions.write("x", Place("a", 0, 4), b"12345")


@pytest.mark.parametrize("given", ["", "/", "..", "/../etc/passwd", "a/b", "/dev/shm/x", "no-such-object", "a\0b", "."])
def test_a_key_that_leads_elsewhere_is_refused(given: str) -> None:
    regions = Regions(is_open=True, max_bytes=1000)
    with pytest.raises(InvalidRequest, match=r"shared memory key .*: names no object of this machine"):
        regions.register("a", given, 0, 1, is_local=True)


def test_a_link_is_not_followed(key: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    path = Path("/dev/shm") / key.lstrip("/")
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(InvalidRequest, match="names no object"):
        Regions(is_open=True, max_bytes=1000).register("a", key, 0, 6, is_local=True)


def test_a_region_is_registered_once_and_gone_when_it_is_unregistered(regions: Regions, key: str) -> None:
    with pytest.raises(RequestIdTaken, match="shared memory region 'a': is registered"):
        regions.register("a", key, 0, 8, is_local=True)
    with pytest.raises(InvalidRequest, match="ends at 65 bytes; its object is shorter"):
        regions.register("b", key, 1, 64, is_local=True)
    assert set(regions.status("")) == {"a"}
    regions.unregister("a")
    regions.unregister("a")
    with pytest.raises(ModelNotFound, match="shared memory region 'a': is not registered"):
        regions.status("a")
    with pytest.raises(ModelNotFound):
        regions.read("x", Place("a", 0, 1))


def test_who_comes_from_elsewhere_or_to_a_server_without_it_gets_none(key: str) -> None:
    with pytest.raises(Unsupported, match="only clients on the server's own machine"):
        Regions(is_open=True, max_bytes=1000).register("a", key, 0, 8, is_local=False)
    with pytest.raises(Unsupported, match="this server takes none; start it with `--shared-memory`"):
        Regions(is_open=False, max_bytes=1000).register("a", key, 0, 8, is_local=True)


@pytest.fixture
def memory() -> Iterator[tuple[Any, Any]]:
    """Two regions of tritonclient's."""
    made = [shm.create_shared_memory_region(f"region{n}", f"/mezzotint-{n}-{uuid.uuid4().hex}", 8192) for n in (0, 1)]
    yield made[0], made[1]
    for region in made:
        shm.destroy_shared_memory_region(region)


async def test_tritonclients_shared_memory_carries_inputs_and_outputs(host: Triton, memory: tuple[Any, Any]) -> None:
    given, got = memory
    for region, name in ((given, "in"), (got, "out")):
        await host.client.register_system_shared_memory(name, region._shm_key, 8192)
    assert set((await host.client.get_system_shared_memory_status()).regions) == {"in", "out"}
    noise = np.random.default_rng(1).standard_normal((1, 4, 8, 8)).astype(np.float32)
    prompt = np.array([b"\x09\0\0\0a red cat"], object)  # tritonclient leaves the length to its user
    shm.set_shared_memory_region(given, [noise])
    shm.set_shared_memory_region(given, [np.array(prompt[0], object)], offset=4096)
    sent = inputs(STEPS=2, INIT_LATENTS=noise)
    sent[0].set_shared_memory("in", serialized_byte_size(prompt), 4096)
    sent[2].set_shared_memory("in", noise.nbytes)
    wanted = outputs("IMAGES", "SEEDS", "FILES")
    wanted[0].set_shared_memory("out", 3072)
    wanted[2].set_shared_memory("out", 4096, 4096)
    result = await host.client.infer("fake", sent, outputs=wanted)
    own = await host.served.client.generate("a red cat", steps=2, latents=noise, seed=0)
    pixels = shm.get_contents_as_numpy(got, np.uint8, [1, 32, 32, 3])
    np.testing.assert_array_equal(pixels[0], np.asarray(own.images[0]))
    assert shm.get_contents_as_numpy(got, np.object_, [1], 4096).tolist() == own.files
    assert result.as_numpy("SEEDS").tolist() == [0]
    place = result.get_output("IMAGES").parameters
    assert (place["shared_memory_region"].string_param, place["shared_memory_byte_size"].int64_param) == ("out", 3072)
    await host.client.unregister_system_shared_memory("in")
    code, message = await host.refusal(host.client.infer("fake", sent))
    assert (code, message) == ("NOT_FOUND", "shared memory region 'in': is not registered; register it first")
    await host.client.unregister_system_shared_memory()
    assert not (await host.client.get_system_shared_memory_status()).regions
    del pixels


async def test_a_region_that_is_too_small_for_a_picture_is_said(host: Triton, memory: tuple[Any, Any]) -> None:
    await host.client.register_system_shared_memory("out", memory[0]._shm_key, 100)
    (wanted,) = outputs("IMAGES")
    wanted.set_shared_memory("out", 100)
    code, message = await host.refusal(host.client.infer("fake", inputs(STEPS=1), outputs=[wanted]))
    assert code == "INVALID_ARGUMENT"
    assert message == "output 'IMAGES': has 3072 bytes; its shared memory holds 100"
    wanted.set_shared_memory("out", 101)
    host.served.unet.calls.clear()
    code, message = await host.refusal(host.client.infer("fake", inputs(STEPS=1), outputs=[wanted]))
    assert message.startswith("output 'IMAGES': 101 bytes from 0 on do not lie inside region 'out' of 100 bytes")
    assert not host.served.unet.calls


async def test_a_server_without_the_option_takes_none(begin: Begin, memory: tuple[Any, Any]) -> None:
    host = await begin(kserve=KserveConfig())
    code, message = await host.refusal(host.client.register_system_shared_memory("a", memory[0]._shm_key, 8))
    assert code == "UNIMPLEMENTED"
    assert message.startswith("shared memory: this server takes none")
    assert "system_shared_memory" not in (await host.client.get_server_metadata()).extensions


@pytest.mark.parametrize("values", [{}, {"SAMPLES": 2}, {"HIRES_SCALE": np.array([2.0], np.float32)}])
async def test_a_place_that_the_pixels_do_not_fit_is_refused_before_any_is_made(
    host: Triton, memory: tuple[Any, Any], values: dict[str, Any]
) -> None:
    await host.client.register_system_shared_memory("out", memory[1]._shm_key, 8192)
    wanted = outputs("IMAGES")
    wanted[0].set_shared_memory("out", 3071 if not values else 3072)  # one of 32 by 32 has 3072
    code, sentence = await host.refusal(host.client.infer("fake", inputs(STEPS=2, **values), outputs=wanted))
    num_bytes = 3072 * (1 if not values else 2 if "SAMPLES" in values else 4)
    assert (code, f"output 'IMAGES': has {num_bytes} bytes; its shared memory holds" in sentence) == (
        "INVALID_ARGUMENT",
        True,
    )
    assert host.served.unet.calls == []
