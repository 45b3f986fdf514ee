"""Writing so that nothing half is ever taken for whole, and a full disk told in one line: what was needed and what there is."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

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
        if error.errno == errno.EFBIG:
            why = "a larger file than may be written there (ulimit -f, or a disk formatted as FAT32)"
            raise DiskFull(f"{what} makes {why}: {folder.resolve()}") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _full(what, folder, needed, shutil.disk_usage(folder).free) from error


def _full(what: str, folder: Path, needed: int | None, free: int) -> DiskFull:
    needs = f"needs {needed / 1e6:,.1f} MB" if needed is not None else "does not fit"
    return DiskFull(
        f"disk full: {what} {needs}, and {folder.resolve()} has {free / 1e6:,.1f} MB left: make room and run it again"
    )


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and goes away when it does not.

    A file that is replaced, not written into: what DVC linked into its cache stays as it is.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(out: Path, what: str, needed: int | None = None) -> Iterator[Path]:
    """An empty folder that becomes `out`, in the place of an older one, when the block ends well, and goes away otherwise.

    Raises DiskFull, as `room_for`, and UserError while another process writes `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (out.with_name(f".{out.name}.{state}") for state in ("unfinished", "old"))
    try:
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=0), room_for(what, out.parent, needed):
            _remove(unfinished, old)  # of a run that was killed
            try:
                unfinished.mkdir()
                yield unfinished
                if out.exists():
                    out.rename(old)
                unfinished.rename(out)
                _remove(old)
            finally:
                _remove(unfinished)
    except Timeout:
        raise UserError(f"{out} is being written by another process: let it finish, or end it") from None


def _remove(*folders: Path) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
