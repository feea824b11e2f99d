"""The HTTP port: metrics, and what a container's probes ask."""

import asyncio
import socket
import time

import pytest

from mezzotint.engines.errors import MezzotintError, Unavailable
from mezzotint.server.config import MetricsConfig, WatchConfig
from mezzotint.server.metrics import Metrics
from mezzotint.server.probes import Probes
from tests.server.conftest import Start
from tests.server.scraping import get

WATCH = WatchConfig(metrics=MetricsConfig(port=0))


async def ask(port: int | None, path: str) -> tuple[int, str]:
    return await asyncio.to_thread(get, port, path)


async def test_a_server_is_ready_while_it_takes_requests_and_live_while_its_loop_runs(start: Start) -> None:
    served = await start(watch=WATCH)
    assert await ask(served.metrics_port, "/health/ready") == (200, "yes\n")
    await served.server.set_ready(False)
    assert await ask(served.metrics_port, "/health/ready") == (503, "no\n")
    assert await ask(served.metrics_port, "/health/live") == (200, "yes\n")
    await asyncio.to_thread(served.core.close)
    assert await ask(served.metrics_port, "/health/live") == (503, "no\n")


async def test_other_paths_say_what_there_is(start: Start) -> None:
    served = await start(watch=WATCH)
    code, text = await ask(served.metrics_port, "/")
    assert code == 404
    assert "/metrics, /health/live and /health/ready" in text


def probes(port: int = 0) -> Probes:
    metrics = Metrics(lambda: ())
    return Probes(MetricsConfig(port=port), metrics, is_live=lambda: True, is_ready=lambda: True)


def test_a_port_that_is_taken_is_one_sentence_and_free_again_after_closing() -> None:
    first = probes()
    with pytest.raises(
        Unavailable, match=rf"127.0.0.1:{first.port}: cannot be listened on for metrics .* use `--metrics-port`"
    ):
        probes(first.port)
    first.close()
    probes(first.port).close()


def test_a_client_that_says_nothing_is_in_nobodys_way() -> None:
    server = probes()
    with socket.create_connection(("127.0.0.1", server.port)):
        began = time.monotonic()
        assert get(server.port, "/health/live") == (200, "yes\n")
        server.close()
        assert time.monotonic() - began < 2.0


def test_a_port_that_cannot_be_is_refused() -> None:
    with pytest.raises(MezzotintError, match="metrics_port=70000: must be between 0 and 65535"):
        MetricsConfig(port=70000)
