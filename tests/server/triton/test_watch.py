import threading

import pytest

from mezzotint.server.triton.watch import Watch


class Looked:
    """Somebody who is looked after a number of times."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.done = threading.Event()

    def look(self) -> bool:
        assert self.left, "nobody looks after those who have ended"
        self.left -= 1
        if not self.left:
            self.done.set()
        return self.left > 0


def test_everybody_is_looked_after_until_there_is_no_more_to_see() -> None:
    watch = Watch(every_seconds=0.001)
    those = [Looked(1), Looked(5)]
    for one in those:
        watch.add(one)
    assert all(one.done.wait(5) for one in those)
    last = Looked(2)
    watch.add(last)
    assert last.done.wait(5)
    watch.close()
    assert [one.left for one in (*those, last)] == [0, 0, 0]


def test_one_who_fails_is_in_nobody_elses_way(caplog: pytest.LogCaptureFixture) -> None:
    class Failing:
        def look(self) -> bool:
            raise RuntimeError("its sender is gone")

    watch = Watch(every_seconds=0.001)
    other = Looked(3)
    for one in (Failing(), other, Failing()):
        watch.add(one)
    assert other.done.wait(5)
    watch.close()
    assert caplog.text.count("RuntimeError: its sender is gone") == 2
