import asyncio

from mezzotint.engines.errors import NotTaken
from mezzotint.server.events import Accepted, Event, Failed, Finished, Picture, Progress, Timings
from mezzotint.server.outbox import MAX_PROGRESS, Outbox

ACCEPTED = Accepted("id", (0,), 1000, 0, (), 0.0, 0.0)
PICTURE = Picture(0, 0, b"png", "png", 8, 8, "f", None, Timings(0, 0, 0, 0, 0))


def taken(outbox: Outbox) -> list[Event]:
    return [outbox.get_nowait() for _ in range(outbox.qsize())]


def test_a_client_that_reads_gets_everything_in_order() -> None:
    outbox = Outbox()
    events = [ACCEPTED, *(Progress(0, step, 9, None, 0.0) for step in range(9)), Finished()]
    for event in events:
        outbox.put_nowait(event)
    assert taken(outbox) == events


def test_the_oldest_progress_is_forgotten_and_nothing_else() -> None:
    outbox = Outbox()
    outbox.put_nowait(ACCEPTED)
    for step in range(1000):
        outbox.put_nowait(Progress(0, step, 1000, None, 0.0))
    outbox.put_nowait(Finished())
    first, *progress, last = taken(outbox)
    assert (first, last) == (ACCEPTED, Finished())
    assert [event.step for event in progress if isinstance(event, Progress)] == list(range(1000 - MAX_PROGRESS, 1000))


def test_what_was_taken_makes_room_again() -> None:
    outbox = Outbox()
    for step in range(3 * MAX_PROGRESS):
        outbox.put_nowait(Progress(0, step, 1000, None, 0.0))
        if step % MAX_PROGRESS == MAX_PROGRESS - 1:
            assert len(taken(outbox)) == MAX_PROGRESS


async def test_pictures_that_nobody_takes_are_forgotten_and_the_ending_says_so() -> None:
    outbox, given_up = Outbox(0.05), asyncio.Event()
    outbox.on_given_up = given_up.set
    for event in (ACCEPTED, PICTURE, PICTURE):
        outbox.put_nowait(event)
    await asyncio.wait_for(given_up.wait(), 10)
    outbox.put_nowait(Finished())
    (ending,) = taken(outbox)
    assert isinstance(ending, Failed)
    assert isinstance(ending.error, NotTaken)
    assert str(ending.error).startswith("2 finished pictures were not taken for 0.05 s")


async def test_a_client_that_takes_something_in_time_keeps_the_rest() -> None:
    outbox = Outbox(0.2)
    for event in (*[PICTURE] * 6, Finished()):
        outbox.put_nowait(event)
    for _ in range(6):
        await asyncio.sleep(0.08)
        assert outbox.get_nowait() is PICTURE
    await asyncio.sleep(0.3)  # no picture waits any more
    assert taken(outbox) == [Finished()]
