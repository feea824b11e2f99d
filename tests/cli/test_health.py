import asyncio
import threading
from collections.abc import Iterator

import pytest

from mezzotint.cli import cli
from mezzotint.cli.errors import run
from mezzotint.server.app import Server
from mezzotint.server.catalog import Catalog


@pytest.fixture
def loading() -> Iterator[str]:
    """The address of a server that has bound its port and loads its bundle."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[Server, int]:
        server = Server(Catalog(["emoji"]))
        return server, await server.start("127.0.0.1", 0)

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    yield f"127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(server.stop(0.0), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_server_that_serves_is_healthy(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["health", server]) == 0
    assert capsys.readouterr().out == f"{server}: SERVING\n"


def test_a_server_that_loads_is_not_healthy_yet(loading: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["health", loading]) == 1
    assert f"mezzotint: {loading}: says NOT_SERVING" in capsys.readouterr().err


def test_where_no_server_is_nothing_is_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["health", "127.0.0.1:1", "--timeout", "2"]) == 1
    assert "mezzotint: 127.0.0.1:1: no server answered the health check (UNAVAILABLE)" in capsys.readouterr().err
