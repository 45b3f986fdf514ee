"""How candidates are measured: in turn, each side in a process of its own, within a budget of seconds."""

import functools
import gc
import multiprocessing
import signal
import statistics
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import torch

K = TypeVar("K")
NO_TIME = "no time left: a larger --seconds measures it"


@dataclass(frozen=True)
class Sizes:
    """What is measured: the paper's networks, or something small to test the benchmark itself."""

    photos: int = 1024  # for preprocess and training
    scored: int = 64  # for evaluate
    photo_size: tuple[int, int] = (500, 375)
    size: int = 256
    batch: int = 16
    filters: int = 64
    downs: int = 8
    grown: tuple[int, ...] = (1_000, 10_000, 100_000)  # datasets of small photos: what grows how
    megapixels: tuple[float, float] = (12, 60)  # of the photos for colorize
    small_photos: int = 100
    film_frames: int = 120  # of each film
    run: int = 5_000  # photos of the runs on a GPU
    repeats: int = 5
    matrices: tuple[int, ...] = (512, 1024, 2048)  # sides, for the ceiling; four times as long on a GPU
    compiled: bool = True
    inception: bool = True
    children: bool = True  # whether each side has its own process, and start-up and peak memory are measured


QUICK = Sizes(
    photos=128, scored=16, batch=4, megapixels=(3, 12), small_photos=32, film_frames=24, repeats=2, compiled=False
)


@dataclass
class Budget:
    """Seconds for a number of measurements, shared out equally among those that are left."""

    seconds: float
    measurements: int
    start: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return self.seconds - (time.monotonic() - self.start)

    def share(self) -> float:
        """Seconds for the next measurement; 0 or less when the time is over."""
        self.measurements -= 1
        return self.left() / (self.measurements + 1)


class Timings(NamedTuple):
    """Median seconds of each candidate, and of how many rounds."""

    medians: dict[Any, float]
    rounds: int

    def note(self, repeats: int) -> str:
        """What a row has to add where the budget left fewer rounds than `repeats`."""
        return "" if self.rounds >= repeats else "1 round" if self.rounds == 1 else f"{self.rounds} rounds"


def in_turn(
    candidates: Mapping[K, Callable[[], Any]],
    repeats: int,
    seconds: float = float("inf"),
    warm: Collection[K] = (),
) -> Timings:
    """Times each candidate once a round: `repeats` rounds, or as many as fit into `seconds`, at least one.

    Those that are not `warm` run once untimed before.
    """
    taken: dict[K, list[float]] = {name: [] for name in candidates}
    begun = time.monotonic()
    for name, candidate in candidates.items():
        if name not in warm:
            candidate()
    for _ in range(repeats):
        round_begun = time.monotonic()
        for name, candidate in candidates.items():
            synchronise()
            start = time.perf_counter()
            candidate()
            synchronise()
            taken[name].append(time.perf_counter() - start)
        now = time.monotonic()
        if now - begun + (now - round_begun) > seconds:
            break
    rounds = len(next(iter(taken.values())))
    return Timings({name: statistics.median(values) for name, values in taken.items()}, rounds)


class Worker:
    """A process that makes candidates and runs them when asked, so that one side's settings do not affect another's.

    Everything in it happens in the block `within`. Where `sizes` allows no children, everything runs in this process. Close it,
    or use it as a context manager.
    """

    def __init__(self, sizes: Sizes, within: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
        self.sizes = sizes
        self._stack = ExitStack()
        if not sizes.children:
            self._stack.enter_context(within())
            return
        self._connection, there = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, within))
        process.start()
        there.close()
        self._stack.callback(self._end, process)

    def make(
        self, make: Callable[..., Mapping[str, Callable[[], Any]]], *settings: Any
    ) -> dict[str, Callable[[], Any]]:
        """`make(sizes, *settings)`, candidates by name, instead of those that were made before."""
        if not self.sizes.children:
            return dict(make(self.sizes, *settings))
        names = self._ask((make, (self.sizes, *settings)), make.__name__)
        return {name: functools.partial(self._ask, name, name) for name in names}

    def _ask(self, message: Any, name: str) -> Any:
        self._connection.send(message)
        try:
            return self._connection.recv()
        except EOFError:
            reason = "out of memory, or for the reason above"
            raise RuntimeError(f"the process that ran {name} has ended: {reason}") from None

    def _end(self, process: Any) -> None:
        self._connection.close()
        process.join(timeout=2)  # it ends when it finds the pipe closed,
        process.terminate()  # or is in the middle of a step when this process was interrupted
        process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _serve(connection: Connection, within: Callable[[], AbstractContextManager[Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    candidates: Mapping[str, Callable[[], Any]] = {}
    with within():
        while True:
            try:
                message = connection.recv()
            except EOFError:  # the parent has finished
                return
            if isinstance(message, str):
                result = candidates[message]()
                synchronise()
            else:
                make, settings = message
                candidates = {}  # frees the memory of what was made before
                gc.collect()
                candidates = make(*settings)
                result = list(candidates)
            connection.send(result)


def synchronise() -> None:
    """Waits until the GPU has finished what was queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> float:
    """GB that this process has held at most, on the GPU where there is one. Linux's ru_maxrss would include the parent's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024 / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
