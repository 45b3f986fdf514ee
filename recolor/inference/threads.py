"""Threads: pools that use one core each, for work on several strips or photos at a time, and iterators that run ahead."""

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


def single_core_threads(count: int) -> ThreadPoolExecutor:
    """A pool of `count` threads. torch's number of threads stays what it was everywhere else.

    torch keeps that number for each thread, and a default for threads to come: `set_num_threads` sets both.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="recolor")
    before, started = torch.get_num_threads(), threading.Barrier(count)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        started.wait()  # so that each of the pool's threads comes here once

    list(pool.map(start, range(count)))
    torch.set_num_threads(before)
    return pool


@functools.cache
def strip_threads() -> ThreadPoolExecutor:
    """One thread for each core that torch may use, for the strips of photos. Made when it is first needed."""
    return single_core_threads(torch.get_num_threads())


def batches(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of `count` items, the last one of fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, count)):
        yield batch


def ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """The same items, of which a thread of its own makes up to `count` before they are asked for."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="recolor-ahead") as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(getattr(iterator, "close", int)).result()


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[T], R], items: Iterable[T], count: int
) -> Generator[R, None, None]:
    """`work` of each item, in order, up to `count` of them at a time in the pool."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
