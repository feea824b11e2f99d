import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mezzotint.engines.errors import MezzotintError, RateLimited
from mezzotint.engines.request import Request
from mezzotint.server.rates import Buckets, RateLimit, parse_rate, unet_rows
from tests.fakes import FakeClock

LIMITS = st.builds(RateLimit, st.floats(0.1, 1e4), st.floats(0.5, 1e5))
REQUESTS = st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5000)), min_size=1, max_size=60)


def admitted(buckets: Buckets, num_rows: int, client: str = "a") -> bool:
    try:
        buckets.take(client, num_rows)
    except RateLimited:
        return False
    return True


@given(LIMITS, REQUESTS, st.floats(0, 1e7))
def test_in_any_time_no_client_gets_more_than_its_rate_and_one_burst(
    limit: RateLimit, requests: list[tuple[float, int]], start: float
) -> None:
    clock = FakeClock(start)
    buckets = Buckets(limit, clock)
    let_in = []
    for pause, num_rows in requests:
        clock.now += pause
        if admitted(buckets, num_rows):
            let_in.append((clock.now, num_rows))
    for first, (begin, _) in enumerate(let_in):
        total = dearest = 0
        for end, num_rows in let_in[first:]:
            total, dearest = total + num_rows, max(dearest, num_rows)
            most = limit.rows_per_second * (end - begin) + max(limit.burst, dearest)
            assert total <= most * (1 + 1e-9) + 1e-3


@given(LIMITS, REQUESTS)
def test_whoever_waits_as_long_as_it_is_told_is_let_in_and_not_told_to_wait_for_nothing(
    limit: RateLimit, requests: list[tuple[float, int]]
) -> None:
    clock = FakeClock()
    buckets = Buckets(limit, clock)
    for pause, num_rows in requests:
        clock.now += pause
        try:
            buckets.take("a", num_rows)
        except RateLimited as refused:
            told = refused.retry_after_ms / 1e3
            if told > 0.002:
                clock.now += told - 0.002
                assert not admitted(buckets, num_rows) or limit.rows_per_second * 0.001 < 2e-6
                clock.now += 0.002
            else:
                clock.now += told
            assert admitted(buckets, num_rows)


@given(LIMITS, REQUESTS, REQUESTS)
def test_clients_do_not_know_of_each_other(
    limit: RateLimit, mine: list[tuple[float, int]], theirs: list[tuple[float, int]]
) -> None:
    def run(others: list[tuple[float, int]]) -> list[bool]:
        clock = FakeClock()
        buckets = Buckets(limit, clock)
        found = []
        for i, (pause, num_rows) in enumerate(mine):
            clock.now += pause
            for _, rows in others[i : i + 1]:
                admitted(buckets, rows, "b")
            found.append(admitted(buckets, num_rows))
        return found

    assert run(theirs) == run([])


@given(LIMITS, st.integers(1, 10**6))
def test_every_request_is_let_in_by_a_full_bucket_and_a_dear_one_leaves_a_debt(limit: RateLimit, num_rows: int) -> None:
    clock = FakeClock()
    buckets = Buckets(limit, clock)
    buckets.take("a", num_rows)
    with pytest.raises(RateLimited) as refused:
        buckets.take("a", int(limit.burst) + 1)
    assert refused.value.retry_after_ms >= 1e3 * min(num_rows, int(limit.burst) + 1) / limit.rows_per_second * 0.999 - 1


def test_what_is_refused_afterwards_costs_nothing() -> None:
    buckets = Buckets(RateLimit(1.0, 100.0), FakeClock())

    def fail() -> None:
        with buckets.paid("a", 100):
            raise KeyError

    for _ in range(3):
        with pytest.raises(KeyError):
            fail()
    with buckets.paid("a", 100):
        pass
    with pytest.raises(RateLimited) as refused:
        buckets.take("a", 50)
    assert str(refused.value) == (
        "the request runs 50 rows of the UNet, and this client has 0 left of 100, with 1 more each second; "
        "try again in 50000 ms"
    )


@settings(max_examples=20)
@given(st.integers(2000, 6000))
def test_buckets_that_are_full_again_are_forgotten(num_clients: int) -> None:
    clock = FakeClock()
    buckets = Buckets(RateLimit(10.0, 10.0), clock)
    for client in range(num_clients):
        clock.now += 0.01  # a bucket is full again after a second, 100 clients later
        buckets.take(client, 10)
    assert len(buckets) <= 1024 + 101


def test_threads_share_a_bucket_to_the_last_row() -> None:
    buckets = Buckets(RateLimit(1.0, 1000.0), FakeClock())
    counts: list[int] = []

    def ask() -> None:
        counts.append(sum(admitted(buckets, 1) for _ in range(400)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 1000


@pytest.mark.parametrize(
    ("text", "limit"), [("100", RateLimit(100.0, 1000.0)), (" 0.5:20 ", RateLimit(0.5, 20.0)), ("7:1", RateLimit(7, 1))]
)
def test_a_rate_is_read_and_written_as_it_is_typed(text: str, limit: RateLimit) -> None:
    assert parse_rate(text) == limit
    assert parse_rate(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "fast", "-1", "0", "1:0", "1:", "nan", "inf", "1e9:1", "1:2:3"])
def test_what_is_no_rate_is_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate; write rows a second, as 100, or with a burst of rows"):
        parse_rate(text)


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(MezzotintError, match="burst=0: must be a finite number of rows above 0"):
        RateLimit(1.0, 0.0)


def test_a_request_costs_the_rows_of_all_its_evaluations_and_pictures(model: tuple) -> None:  # type: ignore[type-arg]
    loaded, _ = model
    for request, rows in (
        (Request(prompt="a", steps=5), 10),
        (Request(prompt="a", steps=5, guidance=1.0), 5),
        (Request(prompt="a", steps=5, sampler="heun", num_images=3), 3 * 2 * 9),
        (Request(prompt="a", steps=10, guidance_end=0.5), 15),
    ):
        assert unet_rows(loaded.start(request)) == rows
