"""Ctrl-C, SIGTERM and SIGHUP (a terminal that closes), for stages and for the training loop."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def on_stop_signals(action: Callable[[str], None]) -> dict[signal.Signals, Any]:
    """Calls `action` with the signal's name, once a signal; ignored ones stay so (`nohup`). Returns the handlers before."""
    before: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        received = signal.Signals(number)
        signal.signal(number, before[received])
        action(received.name)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) != signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    return before


@contextmanager
def stop_flag() -> Iterator[Callable[[], str | None]]:
    """Yields a function for a loop to poll: the name of the first signal that came, or None."""
    received: list[str] = []
    before = on_stop_signals(received.append)
    try:
        yield lambda: received[0] if received else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
