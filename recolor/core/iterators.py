"""Iterators: in batches, under a progress bar, made ahead or in order by threads; pools whose threads use one core each."""

import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")


def progress_bar(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterable[T]:
    """Yields from `iterable` under a bar, which vanishes at the end; without a terminal there is none, so logs stay short."""
    return tqdm(iterable, total=total, desc=desc, disable=None, leave=False)  # None: where stderr is no terminal


def batches(items: Iterable[T], count: int) -> Iterator[list[T]]:
    """Lists of `count` items, the last one of fewer."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, count)):
        yield batch


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


def prefetch(items: Iterable[T], count: int) -> Generator[T, None, None]:
    """The same items; a thread makes up to `count` of them before they are requested."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="recolor-prefetch") as pool:
        try:
            with closing(in_order(pool, lambda _: next(iterator, end), itertools.count(), count + 1)) as made:
                yield from itertools.takewhile(lambda item: item is not end, made)
        finally:
            if isinstance(iterator, Generator):
                pool.submit(iterator.close).result()


def single_core_threads(count: int) -> ThreadPoolExecutor:
    """A pool of `count` threads in which torch uses one core each. torch's number of threads elsewhere stays what it was."""
    import torch  # not at the top: core is imported where torch's seconds are not needed

    pool = ThreadPoolExecutor(count, thread_name_prefix="recolor")
    before, started = torch.get_num_threads(), threading.Barrier(count)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        started.wait()  # so that each of the pool's threads does this once

    list(pool.map(start, range(count)))  # sets the number for each thread, and a default for threads to come
    torch.set_num_threads(before)
    return pool


@functools.cache
def strip_threads() -> ThreadPoolExecutor:
    """One thread for each core that torch may use, for the strips of photos. Made when it is first needed."""
    import torch

    return single_core_threads(torch.get_num_threads())
