"""Rows of the table, and how they are measured: in turn, by the median."""

import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

K = TypeVar("K")


@dataclass(frozen=True)
class Sizes:
    """What is measured: the paper's networks, or something small to try the benchmark itself."""

    photos: int = 1024  # for preprocess and training
    scored: int = 64  # for evaluate
    photo_size: tuple[int, int] = (500, 375)
    size: int = 256
    batch: int = 16
    filters: int = 64
    downs: int = 8
    grown: tuple[int, ...] = (1_000, 10_000, 100_000)  # datasets of small photos, to see what grows how
    repeats: int = 5
    matrices: tuple[int, ...] = (512, 1024, 2048)  # sides, for the ceiling; a GPU's are four times as long
    compiled: bool = True
    inception: bool = True
    children: bool = True  # whether sides have processes of their own, and start-up and peak memory are measured


QUICK = Sizes(photos=128, scored=16, batch=4, repeats=2, compiled=False)


@dataclass(frozen=True)
class Row:
    """One line of the table. `gain` is against the textbook's row, `share` of the machine's ceiling."""

    part: str
    what: str
    value: float | None
    unit: str
    gain: float | None = None
    share: float | None = None


def in_turn(candidates: Mapping[K, Callable[[], Any]], repeats: int) -> dict[K, float]:
    """Median seconds of each candidate over `repeats` rounds, in which each has its turn; one round more, to warm up, first."""
    taken: dict[K, list[float]] = {name: [] for name in candidates}
    for round_ in range(repeats + 1):
        for name, candidate in candidates.items():
            synchronise()
            start = time.perf_counter()
            candidate()
            synchronise()
            if round_:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@contextmanager
def apart(
    sizes: Sizes,
    make: Callable[..., Mapping[K, Callable[[], Any]]],
    *settings: Any,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Iterator[dict[K, Callable[[], Any]]]:
    """`make(sizes, *settings)`, candidates by name, in a process of their own, and there in the block `within`.

    What one side sets for its process is so not the other's. Where `sizes` allows no children, all stay in this one.
    """
    if not sizes.children:
        with within():
            yield dict(make(sizes, *settings))
        return
    here, there = multiprocessing.Pipe()
    serving = (there, within, make, (sizes, *settings))
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=serving)
    process.start()
    there.close()
    try:
        yield {name: _Asked(here, name) for name in _answer(here, make.__name__)}
    finally:
        here.close()
        process.join()


@dataclass(frozen=True)
class _Asked:
    """A candidate in another process, which answers when it has run."""

    process: Connection
    name: Any

    def __call__(self) -> Any:
        self.process.send(self.name)
        return _answer(self.process, self.name)


def _answer(process: Connection, asked: Any) -> Any:
    try:
        return process.recv()
    except EOFError:
        raise RuntimeError(
            f"the process that was asked for {asked} has ended: for want of memory, or as told above"
        ) from None


def _serve(
    asked: Connection,
    within: Callable[[], AbstractContextManager[Any]],
    make: Callable[..., Mapping[Any, Callable[[], Any]]],
    settings: tuple[Any, ...],
) -> None:
    with within():
        candidates = make(*settings)
        asked.send(list(candidates))
        while True:
            try:
                name = asked.recv()
            except EOFError:  # all has been measured
                return
            result = candidates[name]()
            synchronise()
            asked.send(result)


def synchronise() -> None:
    """Waits for the GPU: what was asked of it may not have been done yet."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_memory() -> int:
    """Bytes that this process has held at most. Linux's ru_maxrss would do, but a child takes over its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (kilobytes,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def machine() -> str:
    """The machine in a line."""
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    units = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cpu = f"{names[0] if names else platform.processor()}, {cores} cores ({', '.join(units)})"
    return (
        f"{cpu}, {gpu}; Python {platform.python_version()}, torch {version('torch')}, {torch.get_num_threads()} threads"
    )


def markdown(rows: list[Row]) -> str:
    """The table, with the machine above it."""
    lines = [machine(), "", "| | | | against textbook | of the ceiling |", "| --- | --- | ---: | ---: | ---: |"]
    part = ""
    for row in rows:
        value = "" if row.value is None else f"{row.value:.3g}" if row.value < 1000 else f"{row.value:,.0f}"
        gain = "" if row.gain is None else f"{row.gain:.2f}x"
        share = "" if row.share is None else f"{row.share:.0%}"
        lines.append(f"| {row.part if row.part != part else ''} | {row.what} | {value} {row.unit} | {gain} | {share} |")
        part = row.part
    return "\n".join(lines)


def as_json(rows: list[Row]) -> str:
    return json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2)


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []
