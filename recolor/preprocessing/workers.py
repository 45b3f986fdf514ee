"""A parallel map over processes: ordered results, bounded memory, and recovery from workers that die.

The workers of a ProcessPoolExecutor, and of pebble's pool, share one pipe: if one is killed while it writes a large result (by
the kernel, for memory), all wait forever. Here each worker has its own pipe. Its end shows that the worker died, and with
which task; if this process is killed, the pipe's end makes the workers exit.
"""

import multiprocessing
import signal
import traceback
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from threading import Lock, get_ident
from typing import Generic, TypeVar

from recolor.core.errors import UserError
from recolor.core.iterators import in_order

Task = TypeVar("Task")
Result = TypeVar("Result")

WINDOW = 8  # tasks in progress per worker, which bounds the memory for results
CHANCES = 2  # attempts: the first may fail for another reason, such as memory used by another program
MOST_DEATHS = 20  # without a result between them: the tasks are not the cause
LIMIT = 120.0  # seconds per task; a progressive JPEG of 100 megapixels, the largest accepted, took 8 on one core
_PROCESS_LOCK = Lock()  # for starting and ending a process: multiprocessing's own list of processes is not thread-safe


def ordered_map(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    processes: int,
    lost: Callable[[Task, float | None], Result],
    limit: float = LIMIT,
) -> Generator[Result, None, None]:
    """Yields `work(task)` for each task, in order. With one process the work is done in this one, without recovery.

    If a worker dies, or is killed because a task needs more than `limit` seconds, a new one retries the task; if that fails
    too, the result is `lost(task, None)`, or `lost(task, limit)` after a timeout. Raises UserError if workers keep dying
    without results, and RuntimeError, with the traceback, for an exception in `work`.
    """
    if processes == 1:
        yield from map(work, tasks)
        return
    workers = defaultdict[int, _Worker[Task, Result]](partial(_Worker, work, limit))  # by the thread that waits for it
    deaths, closing = 0, False  # deaths since the last result

    def attempt(task: Task) -> Result:
        nonlocal deaths
        for _ in range(CHANCES):
            worker = workers[get_ident()]
            try:
                result = worker.do(task)
            except (EOFError, OSError):
                del workers[get_ident()]
                late = worker.end()
                deaths += 1
                if closing or deaths > MOST_DEATHS:
                    why = f"worker processes keep dying, the last one with {task}: free some memory"
                    raise UserError(why) from None
            else:
                deaths = 0
                return result
        return lost(task, limit if late else None)

    pool = ThreadPoolExecutor(processes)
    try:
        yield from in_order(pool, attempt, tasks, WINDOW * processes)
    finally:
        closing = True
        for worker in list(workers.values()):
            worker.process.kill()
        pool.shutdown()
        for worker in workers.values():
            worker.end()


class _Worker(Generic[Task, Result]):
    """A process and this side of its pipe."""

    def __init__(self, work: Callable[[Task], Result], limit: float) -> None:
        context = multiprocessing.get_context("spawn")  # the same on all systems, and safe with torch's threads
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, limit), daemon=True)
        with _PROCESS_LOCK:
            self.process.start()
        theirs.close()

    def do(self, task: Task) -> Result:
        """Raises EOFError or OSError if the process dies."""
        self.pipe.send(task)
        failure, result = self.pipe.recv()
        if failure:
            raise RuntimeError(f"{task}: {failure}")
        return result

    def end(self) -> bool:
        """Ends the process. Returns whether the time limit had killed it already."""
        with _PROCESS_LOCK:
            self.process.kill()
            self.process.join()
        self.pipe.close()
        return self.process.exitcode == -signal.SIGALRM


def _serve(pipe: Connection, work: Callable[[Task], Result], limit: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends this one
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills; a Python handler cannot run during a decoder in C
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        failure, result = "", None
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            result = work(task)
        except Exception:
            failure = traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send((failure, result))
