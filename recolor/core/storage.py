"""Writing so that nothing half is ever taken for whole, and a full disk told in one line: what was needed and what there is."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from recolor.core.errors import UserError


class DiskFull(UserError):
    """No room for what has to be written."""


@contextlib.contextmanager
def check_disk_space(what: str, folder: Path, needed: int | None = None) -> Iterator[None]:
    """Around the writing of `what` into `folder`, which it creates. `needed`: bytes, None where nobody knows beforehand.

    Raises DiskFull before anything is written where the room is too small, and where the disk fills on the way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed is not None and needed > free:
        raise _full(what, folder, f"needs {_megabytes(needed)}", free)
    try:
        with _inodes_for(what, folder):
            yield
    except OSError as error:
        if error.errno == errno.EFBIG:
            why = "a larger file than may be written there (ulimit -f, or a disk formatted as FAT32)"
            raise DiskFull(f"{what} makes {why}: {folder.resolve()}") from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        begun = f"does not fit into the {_megabytes(free)} that were free"
        needs = f"needs {_megabytes(needed)}" if needed is not None else begun
        raise _full(what, folder, needs, shutil.disk_usage(folder).free) from error


@contextlib.contextmanager
def _inodes_for(what: str, folder: Path) -> Iterator[None]:
    """Tells a disk that has no room for another file, however many bytes are free on it. To stand inside of what clears away
    after a failure: that gives some room back."""
    try:
        yield
    except OSError as error:
        disk = os.statvfs(folder)
        limited = disk.f_files > 0
        if error.errno != errno.ENOSPC or not limited or disk.f_favail:
            raise
        raise DiskFull(
            f"disk full: {what} takes another file, and {folder.resolve()} has no inode left for one, "
            f"with {_megabytes(disk.f_bavail * disk.f_frsize)} free: delete some files and run it again"
        ) from error


def _full(what: str, folder: Path, needs: str, free: int) -> DiskFull:
    return DiskFull(
        f"disk full: {what} {needs}, and {folder.resolve()} has {_megabytes(free)} left: make room and run it again"
    )


def _megabytes(count: int) -> str:
    digits = 3 if 0 < count < 100_000 else 1  # a few kilobytes are not "0.0 MB"
    return f"{count / 1e6:,.{digits}f} MB"


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and goes away when it does not.

    A file that is replaced, not written into: what DVC linked into its cache stays as it is.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        synchronise(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Waits until a file, or a folder and all that it holds, is on the disk. A name may get there before what it names: without
    this a machine that dies soon after a rename leaves empty files under their final names."""
    for each in [*path.rglob("*"), path]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(out: Path, what: str, needed: int | None = None) -> Iterator[Path]:
    """An empty folder that becomes `out`, in the place of an older one, when the block ends well, and goes away otherwise.

    Raises DiskFull, as `check_disk_space`, and UserError while another process writes `out`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished, old = (out.with_name(f".{out.name}.{state}") for state in ("unfinished", "old"))
    try:
        with FileLock(out.with_name(f".{out.name}.lock"), timeout=0), check_disk_space(what, out.parent, needed):
            _remove(unfinished, old)  # of a run that was killed
            try:
                unfinished.mkdir()
                with _inodes_for(what, unfinished):
                    yield unfinished
                synchronise(unfinished)
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
