"""A request's pieces of work, one after the other, whichever thread they come from."""

import threading
from concurrent.futures import ThreadPoolExecutor

from mezzotint.server.job import Worker


def test_pieces_run_in_their_order_one_at_a_time() -> None:
    order, go = list[int](), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        worker = Worker(pool, lambda error: None)
        worker.post(lambda: order.append(1) if go.wait(10) else None)
        worker.post(lambda: order.append(2))
        worker.post(lambda: order.append(3))
        assert order == []
        go.set()
    assert order == [1, 2, 3]


def test_pieces_of_many_threads_never_run_beside_each_other_and_none_is_lost() -> None:
    inside = threading.Lock()
    collisions, num_run = list[int](), list[int]()

    def piece() -> None:
        if not inside.acquire(blocking=False):
            collisions.append(1)
            return
        num_run.append(1)
        inside.release()

    with ThreadPoolExecutor(2) as pool:
        worker = Worker(pool, lambda error: None)

        def post() -> None:
            for _ in range(500):
                worker.post(piece)

        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done = threading.Event()
        worker.post(done.set)
        assert done.wait(10)
    assert (len(num_run), collisions) == (2000, [])


def test_a_piece_that_fails_is_told_and_those_behind_it_run() -> None:
    failures, ran = list[Exception](), threading.Event()

    def fail() -> None:
        raise ValueError("no")

    with ThreadPoolExecutor(1) as pool:
        worker = Worker(pool, failures.append)
        worker.post(fail)
        worker.post(ran.set)
        assert ran.wait(10)
    assert [str(error) for error in failures] == ["no"]
