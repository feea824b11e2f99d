import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mezzotint.engines.errors import QueueFull
from mezzotint.engines.request import Request
from mezzotint.server.job import ANYONE, Job, Worker
from mezzotint.server.pictures import PictureOptions
from mezzotint.server.register import Register


def job(name: str) -> Job:
    return Job(name, Request(), PictureOptions(), lambda event: None, 0.0, None, ANYONE)


def test_who_is_refused_is_not_there_and_who_enters_is_counted_until_the_scheduler_has_it() -> None:
    heard = []

    def check(num_entering: int) -> None:
        heard.append(num_entering)
        if num_entering > 2:
            raise QueueFull("the queue is full", retry_after_ms=1)

    with ThreadPoolExecutor(1) as executor:
        worker = Worker(executor, lambda error: None)
        register = Register()
        jobs = [job(f"request-{i}") for i in range(3)]
        register.enter(jobs[0], worker, check)
        register.enter(jobs[1], worker, check)
        with pytest.raises(QueueFull):
            register.enter(jobs[2], worker, check)
        assert (list(register), register.num_entering) == (jobs[:2], 2)
        register.entered()
        register.enter(jobs[2], worker, check)
    assert heard == [1, 2, 3, 2]
    assert (len(register), register.num_entering) == (3, 2)


def test_a_request_that_has_ended_does_no_further_piece_and_the_last_one_ends_the_wait() -> None:
    done = []
    with ThreadPoolExecutor(1) as executor:
        register = Register()
        one, other = job("one"), job("other")
        for each in (one, other):
            register.enter(each, Worker(executor, lambda error: None), lambda num_entering: None)
        register.leave(one)
        register.post(one, lambda: done.append("one"))
        register.post(other, lambda: done.append("other"))
        assert not register.wait(0.0)
        threading.Timer(0.05, register.leave, [other]).start()
        assert register.wait(10.0)
    assert done == ["other"]
