"""Iterators whose work is done in threads: one that runs ahead of its user, one that keeps the order of a pool's results."""

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def batches(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of `count` items, the last one of fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, count)):
        yield batch


def ahead(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """The same items; a thread makes up to `count` of them before they are requested."""
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
    """`work` of each item, in order, with up to `count` of them in the pool at a time."""
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
