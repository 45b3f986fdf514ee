"""Progress bars."""

from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterable[T]:
    """Yields from `iterable` under a bar with the time left.

    The bar is shown on a terminal only, so logs stay short, and vanishes at the end. `total` is needed for an iterable without
    a length, `desc` is shown in front of the bar.
    """
    return tqdm(iterable, total=total, desc=desc, disable=None, leave=False)  # None: where stderr is no terminal
