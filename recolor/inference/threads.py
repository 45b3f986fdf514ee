"""Pools of threads that use one core each, for work on several strips or photos at a time."""

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import torch


def single_core_threads(count: int) -> ThreadPoolExecutor:
    """A pool of `count` threads. torch's number of threads stays what it was everywhere else.

    torch keeps that number for each thread, and a default for threads to come: `set_num_threads` sets both.
    """
    pool = ThreadPoolExecutor(count, thread_name_prefix="recolor")
    before, started = torch.get_num_threads(), threading.Barrier(count)

    def start(_: int) -> None:
        torch.set_num_threads(1)
        started.wait()  # so that each of the pool's threads does this once

    list(pool.map(start, range(count)))
    torch.set_num_threads(before)
    return pool


@functools.cache
def strip_threads() -> ThreadPoolExecutor:
    """One thread for each core that torch may use, for the strips of photos. Made when it is first needed."""
    return single_core_threads(torch.get_num_threads())
