import asyncio
from typing import Any, cast

import pytest

from benchmarks.scale import KINDS, row, slower, under_load
from mezzotint import AsyncClient
from mezzotint.server.capacity import Host, predict

HOST = Host(lambda pictures: 0.01 * pictures, 0.02, 1)


class Instant:
    """A client whose pictures take no time; ``asked`` has their steps."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def generate(self, prompt: str, *, steps: int, **_: Any) -> None:
        self.asked.append(steps)
        await asyncio.sleep(0)


def test_a_slower_host_takes_longer_by_the_factor_for_everything() -> None:
    assert slower(HOST, 1.5).picture_seconds(8, 2) == pytest.approx(1.5 * HOST.picture_seconds(8, 2))


async def test_pictures_come_as_often_and_as_mixed_as_was_said() -> None:
    client = Instant()
    found = await under_load(cast(AsyncClient, client), 400.0, 1.0)
    assert len(found) == len(client.asked) == pytest.approx(400, abs=80)
    assert client.asked.count(KINDS[0].steps) / len(found) == pytest.approx(KINDS[0].share, abs=0.1)


def test_a_row_has_what_was_measured_beside_both_predictions() -> None:
    here = slower(HOST, 1.2)
    found = row(HOST, here, 0.5, 2.0, [0.1, 0.2, 0.3])
    assert (found["mean s"], found["pictures"]) == (0.2, 3)
    assert found["by step times"] == round(predict(HOST, KINDS, 2.0, 2).mean, 3)
    assert found["and the cluster's share"] == round(predict(here, KINDS, 2.0, 2).mean, 3)
