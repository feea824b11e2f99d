"""A server in a thread of its own, for clients that block."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from mezzotint.server.app import Server


@contextmanager
def in_a_thread(make: Callable[[], Awaitable[Server]]) -> Iterator[str]:
    """Start the server that ``make`` gives; gives its address, and stops it."""
    ready, stop = threading.Event(), asyncio.Event()
    found: list[tuple[str, asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        server = await make()
        port = await server.start("127.0.0.1", 0)
        found.append((f"127.0.0.1:{port}", asyncio.get_running_loop()))
        ready.set()
        await stop.wait()
        await server.stop(5.0)

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    assert ready.wait(10)
    ((address, loop),) = found
    yield address
    loop.call_soon_threadsafe(stop.set)
    thread.join()
