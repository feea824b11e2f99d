"""Many connections that never get anywhere, byte by byte, beside clients that do."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from mezzotint import AsyncClient
from mezzotint.server.access import AccessConfig, TlsConfig
from tests.server.certificates import Authority
from tests.server.conftest import Start

NUM_SLOW = 50
HANDSHAKE_SECONDS = 1.0
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(20)
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


async def dawdle(target: str, data: bytes) -> float:
    """Send a byte now and then until the server closes the connection; returns after how many seconds it did."""
    host, _, port = target.rpartition(":")
    begin = time.monotonic()
    reader, writer = await asyncio.open_connection(host, int(port))

    async def send() -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.1)

    sending = asyncio.ensure_future(send())
    try:
        while await reader.read(100):
            pass
    except ConnectionError:
        pass
    sending.cancel()
    writer.close()
    return time.monotonic() - begin


async def latencies(target: str, seconds: float, **security: Any) -> list[float]:
    """Return the seconds that pictures took, each over a connection of its own."""
    found = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        begin = time.monotonic()
        async with AsyncClient(target, **security) as client:
            await client.generate("a cat", steps=2)
        found.append(time.monotonic() - begin)
    return found


@pytest.mark.parametrize("kind", ["tls", "plaintext"])
async def test_connections_that_dawdle_are_closed_in_time_and_keep_nobody_waiting(
    start: Start, tmp_path: Path, kind: str
) -> None:
    ours = Authority(tmp_path / "ours")
    files = ours.issue("127.0.0.1")
    tls = TlsConfig(files.cert, files.key) if kind == "tls" else None
    served = await start(access=AccessConfig(tls, handshake_seconds=HANDSHAKE_SECONDS))
    security = {"tls_ca": ours.path} if tls else {}
    alone = await latencies(served.target, 0.3, **security)
    slow = [asyncio.ensure_future(dawdle(served.target, TLS_HELLO if tls else HTTP2_PREFACE)) for _ in range(NUM_SLOW)]
    await asyncio.sleep(0.1)
    among = await latencies(served.target, 0.5, **security)
    shed_after = await asyncio.wait_for(asyncio.gather(*slow), 10)
    assert max(shed_after) < HANDSHAKE_SECONDS + 1.0
    assert min(shed_after) > 0.6  # they were there all the while
    assert statistics.median(among) < 3 * statistics.median(alone) + 0.05
    assert await latencies(served.target, 0.01, **security)
