"""Iterators that run ahead, and work in order."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from recolor.core.iterators import in_order, prefetch


def test_items_come_in_order_from_another_thread_and_not_too_many_ahead() -> None:
    made: list[int] = []
    threads: set[int] = set()

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            threads.add(threading.get_ident())
            yield number

    for number in prefetch(items(), 3):
        assert len(made) <= number + 5
    assert made == list(range(20))
    assert threads.isdisjoint({threading.get_ident()})


@pytest.mark.parametrize("taken", [2, 10])
def test_an_error_comes_through_and_the_source_is_closed(taken: int) -> None:
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(5)
            raise ValueError("the source")
        finally:
            closed.append(True)

    running = prefetch(items(), 2)
    if taken < 5:
        assert [next(running) for _ in range(taken)] == list(range(taken))
        running.close()
    else:
        with pytest.raises(ValueError, match="the source"):
            list(running)
    assert closed == [True]


def test_work_in_a_pool_comes_in_order() -> None:
    waiting = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert waiting.wait(10)  # until the second one has begun
        waiting.set()
        return number * number

    with ThreadPoolExecutor(2) as pool:
        assert list(in_order(pool, work, range(6), 2)) == [0, 1, 4, 9, 16, 25]
        with pytest.raises(ZeroDivisionError):
            list(in_order(pool, lambda number: 1 // number, range(3), 2))
