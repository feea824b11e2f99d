import asyncio
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint import AsyncClient, Client
from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.errors import BundleError, Unavailable
from mezzotint.engines.manifest import MANIFEST
from mezzotint.proto.results import Accepted, Picture
from mezzotint.server import app
from mezzotint.server.app import Server, serve
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import ServerConfig, host_port
from tests.fake_manifest import fake_manifest
from tests.server.bundles import FakeLoader
from tests.server.conftest import eventually

_SERVE = """
import asyncio, sys
from pathlib import Path
from mezzotint.engines.bundle import LoadOptions
from mezzotint.server.app import serve
from mezzotint.server.config import ServerConfig
config = ServerConfig(port=0, drain_seconds=20.0)
asyncio.run(serve([Path(sys.argv[1])], config, LoadOptions(devices={}), ready=lambda port: print(port, flush=True)))
"""


def test_sigterm_finishes_what_was_accepted_and_exits_with_0(emoji_bundle: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(emoji_bundle)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        assert process.stdout is not None
        with Client(f"127.0.0.1:{int(process.stdout.readline())}") as client:
            events = iter(client.stream("a cat face", steps=30, num_images=2))
            assert isinstance(next(events), Accepted)
            process.send_signal(signal.SIGTERM)
            assert sum(isinstance(event, Picture) for event in events) == 2
        assert process.wait(timeout=30) == 0


async def test_two_bundles_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / MANIFEST).write_text(fake_manifest("same").model_dump_json(), encoding="utf-8")
    with pytest.raises(BundleError, match=r"two: is named same, as is .*one; compile one under another name"):
        await serve([tmp_path / "one", tmp_path / "two"], ServerConfig(port=0), LoadOptions(devices={}))


async def test_no_bundle_is_refused() -> None:
    with pytest.raises(BundleError, match="there is no bundle to serve"):
        await serve([], ServerConfig(port=0), LoadOptions(devices={}))


async def test_a_port_that_is_taken_is_one_sentence() -> None:
    first, second = Server(Catalog(["a"])), Server(Catalog(["b"]))
    port = await first.start("127.0.0.1", 0)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}: cannot be listened on; is another server there"):
        await second.start("127.0.0.1", port)
    await asyncio.gather(first.stop(0.0), second.stop(0.0))


async def test_a_bundle_that_cannot_be_loaded_stops_the_server(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(fake_manifest("broken").model_dump_json(), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with pytest.raises(BundleError, match="backend 'fake': must be one of"):
        await serve([tmp_path], ServerConfig(port=port), LoadOptions(devices={}))
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


async def test_a_signal_while_bundles_load_stops_the_server_before_the_next_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, said = FakeLoader(), list[int]()
    loader.gate.clear()
    monkeypatch.setattr(app, "BundleLoader", lambda *_: loader)
    serving = asyncio.create_task(
        serve([root / "a", root / "b"], ServerConfig(port=0), LoadOptions(devices={}), ready=said.append)
    )
    await eventually(lambda: bool(loader.held))
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    loader.gate.set()
    await asyncio.wait_for(serving, 10)
    assert said == []
    assert "b" not in loader.unets


async def test_an_ipv6_host_is_listened_on() -> None:
    server = Server(Catalog(["a"]))
    try:
        port = await server.start("::1", 0)
    except Unavailable:
        pytest.skip("this machine has no IPv6")
    async with AsyncClient(f"[::1]:{port}") as client:
        assert [model.name for model in await client.models()] == ["a"]
    await server.stop(0.0)


@pytest.mark.parametrize(
    ("host", "expected"), [("::1", "[::1]:8"), ("[::1]", "[::1]:8"), ("127.0.0.1", "127.0.0.1:8"), ("box", "box:8")]
)
def test_an_address_has_brackets_where_its_host_has_colons(host: str, expected: str) -> None:
    assert host_port(host, 8) == expected
