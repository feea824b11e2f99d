import asyncio

import pytest

from mezzotint.engines.errors import MezzotintError
from mezzotint.server.tasks import Tasks


@pytest.mark.parametrize(("error", "is_logged"), [(ValueError("a bug"), True), (MezzotintError("a sentence"), False)])
async def test_what_nobody_foresaw_is_logged_though_nobody_waits(
    error: Exception, is_logged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    tasks = Tasks()
    tasks.begin(fail())
    await tasks.all()
    assert not tasks
    assert (str(error) in caplog.text) == is_logged


async def test_they_are_waited_for_no_longer_than_was_said() -> None:
    tasks, go = Tasks(), asyncio.Event()
    await tasks.all()
    task = tasks.begin(go.wait())
    await tasks.all(0.01)
    assert tasks
    go.set()
    await tasks.all()
    assert task.done()
