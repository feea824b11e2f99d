"""What tests of the front door share: calls that come in or are refused, and the audit log's lines."""

from typing import Any

import pytest

from mezzotint import AsyncClient, MezzotintClientError
from tests.server.conftest import Running


def audit(log: pytest.LogCaptureFixture) -> list[str]:
    """Return the audit lines without their ids."""
    lines = [record.message.split() for record in log.records if record.name == "mezzotint.audit"]
    return [" ".join(line[2:]) for line in lines]


async def refusal(served: Running, *, token: str | None = "", **options: Any) -> MezzotintClientError:
    async with AsyncClient(served.target, token=token) as client:
        with pytest.raises(MezzotintClientError) as refused:
            await client.generate("a cat", **{"steps": 1} | options)
    return refused.value


async def paint(served: Running, token: str, **options: Any) -> int:
    async with AsyncClient(served.target, token=token) as client:
        return len((await client.generate("a cat", **{"steps": 1} | options)).files)
