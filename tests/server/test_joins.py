"""A request that is asked for again while it runs, over a real socket."""

import asyncio
from typing import Any

import grpc
import numpy as np
import pytest

from mezzotint import MezzotintClientError
from mezzotint.engines.request import Request
from mezzotint.proto import mezzotint_pb2 as pb
from mezzotint.proto.results import Accepted, Picture, Progress
from mezzotint.server.events import Event, Finished
from mezzotint.server.joins import Joins, OnEvent, same
from tests.server.conftest import Running, entered, eventually, raw
from tests.server.test_outbox import PICTURE

ASKED: dict[str, Any] = {"steps": 4, "seed": 7, "request_id": "mine"}


def told(served: Running, **changes: Any) -> tuple[list[Any], "asyncio.Task[None]"]:
    """Ask for a cat; gives a list that its events come into, and what is asking."""
    events: list[Any] = []
    stream = served.client.stream("a cat", **(ASKED | changes))

    async def ask() -> None:
        async for event in stream:
            hear(event)

    hear = events.append
    return events, asyncio.ensure_future(ask())


async def both(served: Running) -> tuple[list[Any], "asyncio.Task[None]", list[Any], "asyncio.Task[None]"]:
    """Two callers of one request, which is in its first step of four."""
    served.unet.hold()
    first, first_task = told(served)
    await entered(served)
    second, second_task = told(served)
    await eventually(lambda: len(second) == 1)
    return first, first_task, second, second_task


async def test_the_same_id_hears_the_rest_of_what_runs_and_it_runs_once(served: Running) -> None:
    first, first_task, second, second_task = await both(served)
    served.unet.step()
    await entered(served)
    served.unet.release()
    await asyncio.gather(first_task, second_task)
    assert [type(event) for event in second] == [Accepted, *[Progress] * 4, Picture]
    assert second == first
    assert served.unet.calls == [2] * 4
    assert served.core.num_open == 0


async def test_one_that_comes_late_still_gets_accepted_and_every_picture(served: Running) -> None:
    served.unet.hold()
    first, first_task = told(served, guidance=1.0, num_images=12)
    await eventually(lambda: served.core.num_open == 1)
    while not any(isinstance(event, Picture) for event in first):
        served.unet.step()
        await asyncio.sleep(0.01)
    second, second_task = told(served, guidance=1.0, num_images=12)
    await eventually(lambda: any(isinstance(event, Picture) for event in second))
    served.unet.release()
    await asyncio.gather(first_task, second_task)
    pictures = [[event for event in events if isinstance(event, Picture)] for events in (first, second)]
    assert len(pictures[1]) == 12
    assert pictures[0] == pictures[1]
    assert isinstance(second[0], Accepted)
    assert len(second) < len(first)


@pytest.mark.parametrize("goes", [0, 1])
async def test_when_one_caller_goes_away_the_other_ones_goes_on(served: Running, goes: int) -> None:
    first, first_task, second, second_task = await both(served)
    gone, task = ((first_task, second_task), (second_task, first_task))[goes]
    gone.cancel()
    await asyncio.sleep(0.2)
    served.unet.release()
    await task
    assert isinstance((second, first)[goes][-1], Picture)
    assert served.unet.calls == [2] * 4


async def test_when_the_last_caller_has_gone_the_request_is_taken_back(served: Running) -> None:
    _, first_task, _, second_task = await both(served)
    first_task.cancel()
    second_task.cancel()
    await asyncio.sleep(0.2)
    served.unet.release()
    await eventually(lambda: served.core.num_open == 0)
    assert len(served.unet.calls) < 4


async def test_what_was_taken_back_is_not_joined_but_painted_anew(served: Running) -> None:
    served.unet.hold()
    _, gone = told(served)
    await entered(served)
    gone.cancel()
    await asyncio.sleep(0.2)  # it is still in its step
    again, task = told(served)
    await eventually(lambda: served.core.num_open == 2)
    served.unet.release()
    await task
    assert isinstance(again[-1], Picture)


async def test_a_caller_without_a_deadline_outlives_the_deadline_of_the_one_it_joined(served: Running) -> None:
    served.unet.hold()
    first = asyncio.ensure_future(served.client.generate("a cat", timeout=0.7, **ASKED))
    await entered(served)
    second, second_task = told(served)
    await eventually(lambda: len(second) == 1)
    with pytest.raises(MezzotintClientError, match="deadline"):
        await first
    await asyncio.sleep(0.1)
    served.unet.release()
    await second_task
    assert isinstance(second[-1], Picture)


async def test_another_request_of_the_same_id_is_refused_and_the_first_goes_on(served: Running) -> None:
    served.unet.hold()
    first, first_task = told(served)
    await entered(served)
    with pytest.raises(MezzotintClientError, match="another request of this id is running") as refusal:
        await served.client.generate("a dog", **ASKED)
    assert refusal.value.code is grpc.StatusCode.ALREADY_EXISTS
    served.unet.release()
    await first_task
    assert isinstance(first[-1], Picture)


async def test_an_id_is_free_again_when_its_request_has_ended(served: Running) -> None:
    cat, dog = [await served.client.generate(prompt, **ASKED) for prompt in ("a cat", "a dog")]
    assert cat.files != dog.files


async def test_both_callers_hear_a_failure(served: Running) -> None:
    _, first_task, _, second_task = await both(served)
    served.unet.failures = 1
    served.unet.release()
    endings = await asyncio.gather(first_task, second_task, return_exceptions=True)
    assert [getattr(ending, "code", None) for ending in endings] == [grpc.StatusCode.INTERNAL] * 2


async def test_the_seed_that_the_server_chose_is_told_and_is_the_same_request(served: Running) -> None:
    served.unet.hold()
    without = asyncio.ensure_future(
        raw(served, pb.GenerateRequest(prompt="a cat", request_id="mine", steps=2).SerializeToString())
    )
    await entered(served)
    # What Accepted says, which a second caller may send: it joins, since it asks for the same.
    told_seed = pb.GenerateRequest(prompt="a cat", request_id="mine", steps=2, seed=0)
    second = asyncio.ensure_future(raw(served, told_seed.SerializeToString()))
    await asyncio.sleep(0.2)
    served.unet.release()
    events, others = await without, await second
    assert list(events[0].accepted.seeds) == [told_seed.seed]
    assert events[-1].image.data == others[-1].image.data
    assert served.unet.calls == [2] * 2


def test_requests_are_compared_with_their_arrays() -> None:
    noise = np.zeros((1, 4, 8, 8), np.float32)
    assert same(Request(prompt="a", latents=noise), Request(prompt="a", latents=noise.copy()))
    assert not same(Request(prompt="a", latents=noise), Request(prompt="a", latents=noise + 1))
    assert not same(Request(prompt="a", latents=noise), Request(prompt="a"))


class Nothing:
    """The handle of a request that nobody makes."""

    def cancel(self) -> None:
        """Do nothing."""

    def extend(self, deadline: float | None) -> None:
        """Do nothing."""


@pytest.mark.parametrize("ended", [True, False])
def test_nothing_is_kept_of_a_request_that_nobody_can_join_any_more(ended: bool) -> None:
    joins, told, heard = Joins(), list[OnEvent](), list[Event]()

    def start(on_event: OnEvent) -> Nothing:
        told.append(on_event)
        return Nothing()

    joined = joins.enter("mine", "a cat", start, on_event=heard.append)
    (tell,) = told
    tell(PICTURE)
    running = joins._running["mine"]
    assert running._kept == [PICTURE]
    if ended:
        tell(Finished())
    else:
        joined.cancel()
        tell(PICTURE)  # it was on its way
    assert running._kept == []
    assert heard == [PICTURE, *[Finished()] * ended]
    joins.enter("mine", "a dog", start, on_event=heard.append)
    assert len(told) == 2
