"""Ctrl-C, SIGTERM and a terminal that closes as a question that a loop asks, rather than an end in the middle of a step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stop_signals() -> Iterator[Callable[[], str | None]]:
    """Yields a function that names the signal that came, or None. A second signal of a kind does what it did before."""
    came: list[str] = []
    before: dict[signal.Signals, Any] = {}

    def remember(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:  # `nohup` has said already to go on
            before[number] = signal.signal(number, remember)
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
