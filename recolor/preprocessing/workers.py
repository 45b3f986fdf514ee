"""A parallel map over processes: ordered results, bounded memory, and recovery from workers that die.

A ProcessPoolExecutor's workers share one pipe: if one is killed while it writes a large result (by the kernel, for memory),
all wait forever. Here each worker has its own pipe. Its end shows that the worker died, and with which task; if this process
is killed, the pipe's end makes the workers exit.
"""

import contextlib
import multiprocessing
import signal
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from recolor.core.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

WINDOW = 8  # tasks in progress per worker, which bounds the memory for results
AHEAD = 2  # of them in the worker's pipe, so that it does not wait for this process
CHANCES = 2  # attempts: the first may fail for another reason, such as memory used by another program
MOST_DEATHS = 20  # without a result between them: the tasks are not the cause
LIMIT = 120.0  # seconds per task; a progressive JPEG of 100 megapixels, the largest accepted, took 8 on one core


def ordered_map(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    processes: int,
    lost: Callable[[Task, float | None], Result],
    limit: float = LIMIT,
) -> Generator[Result, None, None]:
    """Yields `work(task)` for each task, in order. With one process the work is done in this one, without recovery.

    If a worker dies, or is killed because a task needs more than `limit` seconds, a new one retries the task; if that fails
    too, the result is `lost(task, None)`, or `lost(task, limit)` after a timeout. `work`, tasks and results are pickled.
    Raises UserError if workers keep dying without results, and RuntimeError, with the traceback, for an exception in `work`.
    """
    if processes == 1:
        yield from map(work, tasks)
        return
    numbered = enumerate(tasks)
    done: dict[int, Result] = {}
    deaths: Counter[int] = Counter()
    given = yielded = in_a_row = 0
    workers = [_Worker(work, limit) for _ in range(processes)]
    try:
        while True:
            for worker in workers:
                while len(worker.tasks) < AHEAD and given < yielded + WINDOW * processes:
                    if (item := next(numbered, None)) is None:
                        break
                    worker.give(item)
                    given += 1
            if given == yielded:
                return
            ready = wait([worker.pipe for worker in workers if worker.tasks])
            for place, worker in enumerate(workers):
                if worker.pipe not in ready:
                    continue
                number, task = worker.tasks[0]
                try:
                    done[number] = worker.take()
                    in_a_row = 0
                except (EOFError, OSError):
                    deaths[number] += 1
                    in_a_row += 1
                    if in_a_row > MOST_DEATHS:
                        raise UserError(
                            f"worker processes keep dying, the last one with {task}: free some memory"
                        ) from None
                    late = worker.end()
                    if deaths[number] == CHANCES:
                        worker.tasks.popleft()
                        done[number] = lost(task, limit if late else None)
                    workers[place] = worker.successor()
            while yielded in done:
                yield done.pop(yielded)
                yielded += 1
    finally:
        for worker in workers:
            worker.end()


class _Worker(Generic[Task, Result]):
    """A process, this side of its pipe, and its numbered tasks without a result."""

    def __init__(self, work: Callable[[Task], Result], limit: float) -> None:
        context = multiprocessing.get_context("spawn")  # the same on all systems, and safe with torch's threads
        self.work, self.limit = work, limit
        self.tasks: deque[tuple[int, Task]] = deque()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, limit), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, item: tuple[int, Task]) -> None:
        self.tasks.append(item)
        with contextlib.suppress(OSError):  # the worker died: `take` will raise
            self.pipe.send(item[1])

    def take(self) -> Result:
        """The result of the first task. Raises EOFError or OSError if the worker died."""
        failure, result = self.pipe.recv()
        if failure:
            raise RuntimeError(f"{self.tasks[0][1]}: {failure}")
        self.tasks.popleft()
        return result

    def successor(self) -> "_Worker[Task, Result]":
        """A new process with the remaining tasks of this one, which has ended."""
        successor = _Worker(self.work, self.limit)
        for item in self.tasks:
            successor.give(item)
        return successor

    def end(self) -> bool:
        """Ends the process; whether it had already been killed by the time limit."""
        self.pipe.close()
        self.process.kill()
        self.process.join()
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
