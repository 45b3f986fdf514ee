"""Atomic writes, and disk-full errors that state what was needed and what is free."""

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from recolor.core.errors import UserError


class DiskFull(UserError):
    """The disk has no space for an output."""


@contextlib.contextmanager
def check_disk_space(what: str, folder: Path, needed: int | None = None) -> Iterator[None]:
    """For a block that writes `what` into `folder`, which is created. `needed`: bytes, None if unknown.

    Raises DiskFull before the block if the free space is too small, and if the disk fills up in it. Remove partial files after
    the block: their removal in it would hide what was missing.
    """
    make_folder(folder)
    free = shutil.disk_usage(folder).free
    needs = f"does not fit into the {_megabytes(free)} that were free"
    if needed is not None:
        needs = f"needs {_megabytes(needed)}"
        if needed > free:
            raise _full(what, folder, needs)
    try:
        yield
    except OSError as error:
        disk = os.statvfs(folder)
        if error.errno == errno.EFBIG:
            advice = "raise `ulimit -f`, or write to a disk that is not FAT32"
            raise DiskFull(f"{what}: too large a file for {folder.resolve()}: {advice}") from error
        if error.errno == errno.ENOSPC and disk.f_files and not disk.f_favail:
            raise DiskFull(
                f"disk full: {what} needs another file, and {folder.resolve()} has no inode left, "
                f"with {_megabytes(disk.f_bavail * disk.f_frsize)} free: delete some files and run it again"
            ) from error
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(what, folder, needs) from error
        raise


def _full(what: str, folder: Path, needs: str) -> DiskFull:
    left = _megabytes(shutil.disk_usage(folder).free)
    return DiskFull(
        f"disk full: {what} {needs}, and {folder.resolve()} has {left} left: free some space and run it again"
    )


def _megabytes(count: int) -> str:
    digits = 3 if 0 < count < 100_000 else 1  # a few kilobytes are not "0.0 MB"
    return f"{count / 1e6:,.{digits}f} MB"


def make_folder(folder: Path) -> None:
    """Makes `folder` and those above it. NotADirectoryError where one is a file: FileExistsError is for outputs that exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def is_folder(path: Path) -> bool:
    """As pathlib's, but False for a name that the system refuses: too long, or below a folder that may not be searched."""
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """As `is_folder`, for regular files."""
    return os.path.isfile(path)  # noqa: PTH113


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_file(path: Path, what: str, needed: int | None = None) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block succeeds and is removed otherwise. Creates the folder.

    An existing file is replaced, not overwritten: files that DVC has linked into its cache stay unchanged. The permissions
    follow the umask, whatever the writer sets (safetensors: 0600). Raises DiskFull (see `check_disk_space`).
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with check_disk_space(what, path.parent, needed):
            if os.path.lexists(temporary):  # left by a killed run
                temporary.unlink()
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)
            synchronise(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def user_output(out: Path, force: bool = True) -> Iterator[None]:
    """For a block that writes `out`. UserError where it exists, unless `force` or an empty folder, and for an OSError."""
    existed = os.path.lexists(out)
    try:
        if not force and existed and not (is_folder(out) and not any(out.iterdir())):
            raise UserError(f"{out}: exists already; --force overwrites it")
        yield
    except BaseException as error:
        if not existed:
            with contextlib.suppress(OSError):
                out.rmdir()  # another command may have written what is in it
        if isinstance(error, OSError):
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        raise


@contextlib.contextmanager
def new_file(path: Path, replace: bool) -> Iterator[Path]:
    """As `atomic_file`, with a hidden temporary path. Raises OSError; FileExistsError where `path` exists, unless `replace`."""
    make_folder(path.parent)
    temporary = path.with_name(f".recolor-{uuid.uuid4().hex}.part")
    try:
        yield temporary
        synchronise(temporary)
        if replace:
            temporary.replace(path)
        else:
            _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> None:
    """Makes `path` a name of `temporary`. Without hard links (FAT), an empty file holds the name first."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        path.open("xb").close()
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise


def unwritable(folders: Iterable[Path]) -> dict[Path, str]:
    """The reason for each of `folders` in which no file can be made: tried there, or above where the folder does not exist."""
    reasons = {}
    for folder in folders:
        existing = folder
        while not os.path.lexists(existing) and existing != existing.parent:
            existing = existing.parent
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            reasons[folder] = error.strerror or str(error)
    return reasons


def synchronise(path: Path) -> None:
    """Flushes a file, or a folder with all it holds, to disk: else a power failure can leave empty files under final names."""
    for each in [*path.rglob("*"), path]:
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(out: Path, what: str, needed: int | None = None) -> Iterator[Path]:
    """An empty folder that replaces `out` when the block succeeds and is removed otherwise. Permissions follow the umask.

    Raises DiskFull (see `check_disk_space`), and UserError while another process writes `out`.
    """
    make_folder(out.parent)
    unfinished, old = (out.with_name(f".{out.name}.{state}") for state in ("unfinished", "old"))
    with only_writer(out, out.with_name(f".{out.name}.lock")):
        for left in (unfinished, old):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        try:
            with check_disk_space(what, out.parent, needed):
                unfinished.mkdir()
                yield unfinished
                for file in filter(Path.is_file, unfinished.rglob("*")):
                    file.chmod(unfinished.stat().st_mode & 0o666)
                synchronise(unfinished)
                if out.exists():
                    out.rename(old)
                unfinished.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def only_writer(out: Path, lock: Path) -> Iterator[None]:
    """Holds the file `lock` within the block. Raises UserError while another process holds it, which writes `out`."""
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise UserError(f"{out} is being written by another process: wait for it or stop it") from None
