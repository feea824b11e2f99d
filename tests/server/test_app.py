import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mezzotint import Client
from mezzotint.engines.bundle import LoadOptions
from mezzotint.engines.errors import BundleError, Unavailable
from mezzotint.engines.manifest import MANIFEST
from mezzotint.proto.results import Accepted, Picture
from mezzotint.server.app import Server, serve
from mezzotint.server.catalog import Catalog
from mezzotint.server.config import ServerConfig
from tests.fake_manifest import fake_manifest

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
    with pytest.raises(BundleError):
        await serve([tmp_path], ServerConfig(port=0), LoadOptions(devices={}))
