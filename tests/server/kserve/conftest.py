"""Triton's own clients, unchanged, against servers of this process and of another."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from mezzotint.server.config import KserveConfig
from tests.cli.conftest import started
from tests.server.conftest import Running, Start

DTYPES = {"BYTES": object, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
TYPES = {"SEED": "INT64", "SUBSEED": "INT64"}
TYPES |= dict.fromkeys(("GUIDANCE_SCALE", "STRENGTH", "INIT_LATENTS", "ETA", "SUBSEED_STRENGTH", "HIRES_SCALE"), "FP32")


def inputs(prompt: str | bytes = "a cat", **values: Any) -> list[triton.InferInput]:
    """Return the inputs of a request as a user of tritonclient makes them."""
    made = []
    for name, value in {"PROMPT": prompt, **values}.items():
        kind = TYPES.get(name, "BYTES" if isinstance(value, str | bytes) else "INT32")
        value = value.encode() if isinstance(value, str) else value
        array = np.array([value], DTYPES[kind]) if not isinstance(value, np.ndarray) else value
        made.append(triton.InferInput(name, list(array.shape), kind))
        made[-1].set_data_from_numpy(array)
    return made


def outputs(*names: str) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name) for name in names]


@dataclass
class Triton:
    """A server that speaks the protocol, on fake engines, and tritonclient's client for asyncio."""

    served: Running
    client: InferenceServerClient

    async def refusal(self, call: Awaitable[Any]) -> tuple[str, str]:
        """Return the status and the sentence that a call is refused with."""
        with pytest.raises(InferenceServerException) as refused:
            await call
        return refused.value.status().removeprefix("StatusCode."), refused.value.message()


Begin = Callable[..., Awaitable[Triton]]


@pytest.fixture
async def begin(start: Start) -> AsyncIterator[Begin]:
    """Start servers with limits or a front door of the test's own."""
    async with AsyncExitStack() as stack:

        async def make(**options: Any) -> Triton:
            served = await start(**{"kserve": KserveConfig(shared_memory=True)} | options)
            client = InferenceServerClient(served.target)
            stack.push_async_callback(client.close)
            return Triton(served, client)

        yield make


@pytest.fixture
async def host(begin: Begin) -> Triton:
    """A server with the usual limits."""
    return await begin()


@pytest.fixture(scope="module")
def address(emoji_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a process of its own that serves the demo model from a repository."""
    root = tmp_path_factory.mktemp("repository")
    (root / "emoji").mkdir()
    for file in emoji_bundle.iterdir():
        (root / "emoji" / file.name).hardlink_to(file)
    with started(root / "emoji", "--model-repository", str(root), "--shared-memory") as (process, address):
        yield address
    assert process.returncode == 0
