"""Work spread over processes: results in order, memory bounded, and no death that goes unnoticed.

Not a ProcessPoolExecutor: its workers share one pipe, and one that is killed while it writes a large result (the kernel
does, for memory) leaves everybody waiting for ever. Here each worker has a pipe of its own, whose end says that the
worker is dead and what it was at; and when this process is killed, the same pipe's end sends the workers home.
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

WINDOW = 8  # tasks under way for each worker: their results are all the memory that results take
AHEAD = 2  # of them in the worker's own pipe, so that it need not wait for us
CHANCES = 2  # the first time may be bad luck: memory that another program took, a disk that stalled, a run that slept
MOST_DEATHS = 20  # without a result between them: it is not the tasks
LIMIT = 120.0  # seconds for a task; a progressive JPEG of 100 megapixels, the most that is decoded, took 8 on one core


def ordered_map(
    work: Callable[[Task], Result],
    tasks: Iterable[Task],
    processes: int,
    lost: Callable[[Task, float | None], Result],
    limit: float = LIMIT,
) -> Generator[Result, None, None]:
    """Yields `work(task)` of each task, in order. With one process the work is done in this one, without a net.

    A task whose worker dies, or is killed because it takes more than `limit` seconds, is given to a new one; when that dies
    too, the result is `lost(task, None)`, or `lost(task, limit)` where it was the time that ran out. `work`, tasks and
    results are pickled. Raises UserError when workers die and nothing gets done, and RuntimeError, with the traceback,
    for an exception in `work`.
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
                            f"worker processes keep dying, the last one at {task}: free some memory"
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
    """A process, our end of its pipe, and the numbered tasks that it has not answered yet."""

    def __init__(self, work: Callable[[Task], Result], limit: float) -> None:
        context = multiprocessing.get_context("spawn")  # everywhere the same, and safe beside torch's threads
        self.work, self.limit = work, limit
        self.tasks: deque[tuple[int, Task]] = deque()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, limit), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, item: tuple[int, Task]) -> None:
        self.tasks.append(item)
        with contextlib.suppress(OSError):  # it is dead; `take` finds that out
            self.pipe.send(item[1])

    def take(self) -> Result:
        """The answer to the first task. EOFError or OSError: it died over it."""
        failure, result = self.pipe.recv()
        if failure:
            raise RuntimeError(f"{self.tasks[0][1]}: {failure}")
        self.tasks.popleft()
        return result

    def successor(self) -> "_Worker[Task, Result]":
        """Another process, given what this one, which has ended, leaves undone."""
        heir = _Worker(self.work, self.limit)
        for item in self.tasks:
            heir.give(item)
        return heir

    def end(self) -> bool:
        """Whether it had died already because its time ran out."""
        self.pipe.close()
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGALRM


def _serve(pipe: Connection, work: Callable[[Task], Result], limit: float) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; who gave the work ends it
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # the system's own, which kills: a decoder in C lets no Python in
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
