"""Progress bars for people, silence for logs."""

import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterable[T]:
    """Yields from `iterable` under a bar with the time left, shown on a terminal only."""
    return tqdm(iterable, total=total, desc=desc, disable=not sys.stderr.isatty(), leave=False)
