import pytest

from mezzotint.server.ray.loads import ROW_SECONDS, SECONDS_LEFT, SERIAL, Loads


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def report(serial: int, seconds_left: float, row_seconds: float = 0.01) -> dict[str, float]:
    return {SERIAL: serial, SECONDS_LEFT: seconds_left, ROW_SECONDS: row_seconds}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loads(clock: Clock) -> Loads[str]:
    return Loads(clock)


def test_the_replica_that_will_be_done_first_goes_first(loads: Loads[str]) -> None:
    for name, seconds in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        loads.hear(name, report(0, seconds))
    assert loads.order("abc", "", 50) == ["b", "c", "a"]


def test_a_slower_replica_with_less_to_do_may_be_done_later(loads: Loads[str]) -> None:
    loads.hear("slow", report(0, 0.0, row_seconds=0.1))
    loads.hear("fast", report(0, 1.0, row_seconds=0.01))
    assert loads.order(["slow", "fast"], "", 50) == ["fast", "slow"]
    assert loads.order(["slow", "fast"], "", 5) == ["slow", "fast"]


def test_what_was_sent_since_the_last_report_counts_by_its_rows(loads: Loads[str]) -> None:
    loads.hear("a", report(0, 0.0))
    loads.hear("b", report(0, 0.4))
    loads.send(1, "a", "x", 100)
    assert loads.waits()["a"] == pytest.approx(1.0)
    assert loads.order("ab", "", 10) == ["b", "a"]


def test_a_burst_is_shared_out_before_any_replica_reports_again(loads: Loads[str]) -> None:
    for name in "abc":
        loads.hear(name, report(0, 0.0))
    chosen = []
    for key in range(9):
        chosen.append(loads.order("abc", f"r{key}", 10)[0])
        loads.send(key, chosen[-1], f"r{key}", 10)
    assert sorted(chosen) == sorted("abc" * 3)


def test_a_report_holds_what_was_sent_well_before_it(loads: Loads[str], clock: Clock) -> None:
    loads.hear("a", report(0, 0.0))
    loads.send(1, "a", "x", 100)
    clock.now += 0.1
    loads.hear("a", report(1, 0.2))  # made before the request was there, perhaps
    assert loads.waits()["a"] == pytest.approx(1.2)
    clock.now += 1.0
    loads.hear("a", report(2, 0.7))
    assert loads.waits()["a"] == pytest.approx(0.7)


def test_the_same_report_again_is_no_news(loads: Loads[str], clock: Clock) -> None:
    loads.hear("a", report(5, 1.0))
    loads.send(1, "a", "x", 100)
    clock.now += 10
    loads.hear("a", report(5, 1.0))
    assert loads.waits()["a"] == pytest.approx(2.0)


def test_a_request_that_ended_counts_no_more(loads: Loads[str]) -> None:
    loads.hear("a", report(0, 1.0))
    loads.send(1, "a", "x", 100)
    loads.end(1)
    loads.end(1)
    assert loads.waits()["a"] == pytest.approx(1.0)


def test_an_id_that_runs_goes_where_it_runs_whatever_waits_there(loads: Loads[str]) -> None:
    loads.hear("a", report(0, 9.0))
    loads.hear("b", report(0, 0.0))
    loads.send(1, "a", "twice", 10)
    assert loads.order("ab", "twice", 10) == ["a", "b"]
    assert loads.order("ab", "", 10) == ["b", "a"]
    loads.end(1)
    assert loads.order("ab", "twice", 10) == ["b", "a"]


def test_where_nothing_was_said_yet_the_fewest_open_requests_decide(loads: Loads[str]) -> None:
    loads.hear("a", {})
    loads.send(1, "a", "x", 10)
    assert loads.order("ab", "y", 10) == ["b", "a"]


def test_a_request_that_was_sent_elsewhere_after_all_counts_there(loads: Loads[str]) -> None:
    loads.hear("a", report(0, 0.0))
    loads.hear("b", report(0, 0.0))
    loads.send(1, "a", "x", 100)
    loads.send(1, "b", "x", 100)
    assert loads.waits() == {"a": 0.0, "b": pytest.approx(1.0)}


def test_replicas_that_are_gone_are_forgotten_with_their_requests(loads: Loads[str]) -> None:
    loads.hear("a", report(0, 5.0))
    loads.hear("b", report(0, 1.0))
    loads.send(1, "a", "x", 10)
    assert loads.order("b", "x", 10) == ["b"]
    assert "a" not in loads.waits()
    assert loads.order("ab", "x", 10) == ["a", "b"]
