from mezzotint.server.events import Accepted, Event, Finished, Picture, Progress, Timings
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


def test_pictures_stay_until_it_is_closed_and_then_nothing_does() -> None:
    outbox = Outbox()
    for event in (PICTURE, *(Progress(0, step, 1000, None, 0.0) for step in range(MAX_PROGRESS + 1)), PICTURE):
        outbox.put_nowait(event)
    assert outbox.qsize() == MAX_PROGRESS + 2
    assert outbox.get_nowait() is PICTURE
    outbox.close()
    outbox.put_nowait(Finished())
    assert outbox.empty()
