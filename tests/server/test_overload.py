"""Ten times as many requests as a real server can make: it says no at once, and keeps its word to those it took in."""

import asyncio
import time
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.start import settle
from mezzotint import AsyncClient, MezzotintClientError
from tests.cli.conftest import started
from tests.server.faults import held

QUEUE, STARTED = 16, 8
TIMES = 10
SECONDS = 6.0
STEPS = 4


class Flood:
    """Requests at a steady rate, whatever becomes of them."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.latencies: list[float] = []
        self.refusals: list[MezzotintClientError] = []

    async def one(self, seed: int) -> None:
        begun = time.monotonic()
        try:
            result = await self.client.generate("a cat face", steps=STEPS, guidance=4.0, seed=seed)
            assert len(result.files) == 1
            self.latencies.append(time.monotonic() - begun)
        except MezzotintClientError as error:
            self.refusals.append(error)

    async def run(self, a_second: float, seconds: float) -> None:
        begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(a_second * seconds)):
                await asyncio.sleep(max(0.0, begun + number / a_second - time.monotonic()))
                tasks.create_task(self.one(number))


async def health_times(address: str, over: asyncio.Event) -> list[float]:
    """Ask for health until it is over; returns the seconds of each answer, all of which say SERVING."""
    times = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while not over.is_set():
            begun = time.monotonic()
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            times.append(time.monotonic() - begun)
            await asyncio.sleep(0.2)
    return times


@pytest.mark.slow
async def test_at_ten_times_its_capacity_a_server_refuses_with_a_hint_and_serves_those_it_took_in_time(
    emoji_bundle: Path,
) -> None:
    limits = ("--max-queue-size", str(QUEUE), "--max-started-images", str(STARTED))
    with started(emoji_bundle, *limits) as (process, address):
        async with AsyncClient(address, retries=0) as client:
            warm = Flood(client)
            await warm.one(0)
            settle(process.pid)  # all row counts are prepared
            begun = time.monotonic()
            await asyncio.gather(*(warm.one(seed) for seed in range(QUEUE)))
            capacity = QUEUE / (time.monotonic() - begun)
            before = held(process.pid)
            flood, over = Flood(client), asyncio.Event()
            health = asyncio.create_task(health_times(address, over))
            begun = time.monotonic()
            await flood.run(TIMES * capacity, SECONDS)
            throughput = len(flood.latencies) / (time.monotonic() - begun)
            over.set()
            assert max(await health) < 2.0
            after = held(process.pid)
    assert not warm.refusals
    assert {error.code for error in flood.refusals} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(flood.refusals) > 5 * len(flood.latencies)
    assert all(error.retry_after_ms for error in flood.refusals)
    assert throughput > capacity / 3  # its clients share its cores
    assert np.percentile(flood.latencies, 99) < 2 * (QUEUE + STARTED) / throughput
    assert after.resident_mib - before.resident_mib < 64
