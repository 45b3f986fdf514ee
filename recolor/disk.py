"""A full disk, told in one line: what was needed and what there is."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from recolor.errors import UserError


class DiskFull(UserError):
    """No room for what has to be written."""


@contextlib.contextmanager
def room_for(what: str, folder: Path, needed: int | None = None) -> Iterator[None]:
    """Around the writing of `what` into `folder`, which it creates. `needed`: bytes, None where nobody knows beforehand.

    Raises DiskFull before anything is written where the room is too small, and where the disk fills on the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise _full(what, folder, needed, free)
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(what, folder, needed, shutil.disk_usage(folder).free) from error


def _full(what: str, folder: Path, needed: int | None, free: int) -> DiskFull:
    needs = f"needs {needed / 1e6:,.1f} MB" if needed is not None else "does not fit"
    return DiskFull(
        f"disk full: {what} {needs}, and {folder.resolve()} has {free / 1e6:,.1f} MB left: make room and run it again"
    )
