"""Real bundles that come and go in a real server under traffic: no request is lost, and memory comes back."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mezzotint import AsyncClient
from mezzotint.cli.serve import READY
from mezzotint.engines.bundle import RESERVED_BYTES, LoadOptions, wanted_engines
from mezzotint.engines.bundle_files import file_digest
from mezzotint.engines.manifest import MANIFEST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process takes"),
]
MIB = 1 << 20
REST_SECONDS = 4.0  # in which row counts that follow are prepared, and old versions are gone


@dataclass
class Served:
    """A server in a process of its own."""

    address: str
    process: "subprocess.Popen[str]"

    def status(self, field: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    @property
    def resident_mib(self) -> int:
        return self.status("VmRSS") >> 10

    @property
    def num_threads(self) -> int:
        return self.status("Threads")


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[Served]:
    process = subprocess.Popen(
        [sys.executable, "-m", "mezzotint", "serve", *arguments, "--port", "0", "--model-repository", str(root)],
        env=os.environ | {"XDG_CACHE_HOME": str(root / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert READY in line
            yield Served(line.rpartition(READY)[2].strip(), process)
        finally:
            process.terminate()
        assert process.wait(timeout=60) == 0


def copy(bundle: Path, folder: Path, *, name: str, sampler: str) -> str:
    """Copy a bundle, with another name and default sampler in its manifest, and return its digest."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["name"], manifest["schedule"]["default_sampler"] = name, sampler
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return file_digest(folder / MANIFEST)


async def test_twenty_real_swaps_under_traffic_lose_no_request_and_leave_memory_and_threads_as_they_were(
    emoji_bundle: Path, tmp_path: Path
) -> None:
    digests = {copy(emoji_bundle, tmp_path / s, name="emoji", sampler=s) for s in ("ddim", "euler_a")}
    pictures: dict[tuple[str, int], set[bytes]] = {}
    num_sent = num_done = 0
    with serving(tmp_path, str(tmp_path / "ddim")) as served:
        async with AsyncClient(served.address) as client:

            async def traffic(seed: int, stopped: asyncio.Event) -> None:
                nonlocal num_sent, num_done
                while not stopped.is_set():
                    num_sent += 1
                    result = await client.generate("a cat face", steps=3, seed=seed)
                    pictures.setdefault((result.pictures[0].engine_digest, seed), set()).add(result.files[0])
                    num_done += 1

            async def swap(times: int) -> tuple[int, int]:
                stopped = asyncio.Event()
                clients = [asyncio.create_task(traffic(seed, stopped)) for seed in range(3)]
                for i in range(times):
                    loaded = await client.load_model(("euler_a", "ddim")[i % 2])
                    assert {loaded.model.digest, loaded.replaced_digest} == digests
                stopped.set()
                await asyncio.gather(*clients)  # a request that is refused or lost raises here
                await asyncio.sleep(REST_SECONDS)
                assert [model.state for model in await client.models()] == ["ready"]
                return served.resident_mib, served.num_threads

            mib, threads = await swap(6)
            after_mib, after_threads = await swap(20)
            await client.unload_model("emoji")
            gone_mib = served.resident_mib
    assert num_done == num_sent >= 30
    assert {key[0] for key in pictures} == digests
    assert all(len(files) == 1 for files in pictures.values())
    assert len({file for files in pictures.values() for file in files}) == 6
    assert after_mib < 1.25 * mib
    assert after_threads <= threads + 4  # of the runtime's own, which it keeps: one for each call at one time
    assert gone_mib < after_mib - 200


async def test_an_evicted_bundle_gives_its_memory_back_and_paints_the_same_picture_later(
    emoji_bundle: Path, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        copy(emoji_bundle, tmp_path / name, name=name, sampler="ddim")
    least = sum(e.least_bytes() for e in wanted_engines(emoji_bundle, LoadOptions(devices={}, cache=False)).values())
    budget = 128 * MIB + RESERVED_BYTES + least * 3 // 2  # of one, and not of two
    with serving(tmp_path, "--memory-budget", str(budget)) as served:
        async with AsyncClient(served.address) as client:
            await client.load_model("first")
            before = (await client.generate("a cat face", model="first", steps=3, seed=1)).files
            await asyncio.sleep(REST_SECONDS)
            one = served.resident_mib
            await client.load_model("second")
            for name in ("first", "second", "first"):
                after = (await client.generate("a cat face", model=name, steps=3, seed=1)).files
                states = {model.name: model.state for model in await client.models()}
                assert states == {"first": "unavailable", "second": "unavailable"} | {name: "ready"}
            assert after == before
            await asyncio.sleep(REST_SECONDS)
            assert served.resident_mib < min(one * 1.2, budget / MIB)
