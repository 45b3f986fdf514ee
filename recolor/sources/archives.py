"""Extracts some files from an archive that may be malicious.

The whole archive is checked before anything is written. It is refused if it contains a path outside its folder, a link, a
device, or data far larger than itself. `tarfile.data_filter` accepts links inside the folder, and does not limit sizes.
"""

import contextlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast

from recolor.core.errors import UserError, one_line
from recolor.core.iterators import progress_bar
from recolor.core.storage import check_disk_space

MAX_RATIO = 100  # unpacked size to archive size; photos, which are compressed already, have about 1


class ArchiveError(UserError):
    """An archive that is damaged, unsafe or unsupported."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. `name`: relative, checked, with slashes. `place`: an offset in a tar, a ZipInfo."""

    name: str
    size: int
    place: Any
    modified: int | None = None  # seconds since 1970; a zip has none


def members(archive: Path) -> Iterator[Member]:
    """The files in a zip or tar; tars in a tar, as ImageNet has them, count as folders. ArchiveError for a refused archive."""
    with _translate_errors(archive), _open(archive) as opened:
        yield from _in_zip(archive, opened) if isinstance(opened, zipfile.ZipFile) else _in_tar(archive, opened)


def extract(archive: Path, wanted: Sequence[Member], folder: Path) -> None:
    """Writes `wanted` under `folder`, each file atomically; those of an earlier run stay. Raises ArchiveError and DiskFull."""
    missing = [member for member in wanted if not _is_there(folder / member.name, member)]
    with (
        _translate_errors(archive),
        check_disk_space(f"unpacking {archive.name}", folder, sum(member.size for member in missing)),
        _open(archive) as opened,
    ):
        for member in progress_bar(missing, desc=f"unpacking {archive.name}"):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.parent / f".part-{os.getpid()}"
            try:
                with _content(opened, member) as source, part.open("wb") as out:
                    shutil.copyfileobj(source, out)
                if member.modified is not None:
                    os.utime(part, (member.modified, member.modified))
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)


def _is_there(file: Path, member: Member) -> bool:
    """Whether an earlier run has written `file`. Another size or time means another archive."""
    found = file.stat() if file.is_file() else None
    return bool(found and found.st_size == member.size and member.modified in (None, int(found.st_mtime)))


def _open(archive: Path) -> tarfile.TarFile | zipfile.ZipFile:
    try:
        return tarfile.open(archive)
    except tarfile.TarError:
        return zipfile.ZipFile(archive)


def _content(opened: tarfile.TarFile | zipfile.ZipFile, member: Member) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(member.place)
    info = tarfile.TarInfo(member.name)
    info.size, info.offset_data = member.size, member.place
    return cast("IO[bytes]", opened.extractfile(info))


def _in_zip(archive: Path, zipped: zipfile.ZipFile) -> Iterator[Member]:
    total = 0
    for info in zipped.infolist():
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: made on a system without file types
            raise ValueError(f"{info.filename!r} is a link or a device")
        total += info.file_size
        _check_ratio(archive, total)
        yield Member(_checked(info.filename), info.file_size, info)


def _in_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in _files(archive, tar):
        name = _checked(info.name)
        if not name.endswith(".tar"):
            yield Member(name, info.size, info.offset_data, int(info.mtime))
            continue
        with tarfile.open(fileobj=tar.extractfile(info), mode="r:") as inner:
            for file in _files(archive, inner):
                inside = _checked(f"{name.removesuffix('.tar')}/{_checked(file.name)}")
                yield Member(inside, file.size, info.offset_data + file.offset_data, int(file.mtime))


def _files(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of `tar`. The offset of the next header is checked first: all before it gets decompressed."""
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # ImageNet's million members need a gigabyte
        _check_ratio(archive, tar.offset)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise ValueError(f"{info.name!r} is a link, a device or sparse")
        yield info


def _check_ratio(archive: Path, unpacked: int) -> None:
    if unpacked > MAX_RATIO * archive.stat().st_size:
        raise ValueError(f"it holds more than {MAX_RATIO} times its size")


def _checked(name: str) -> str:
    """`name`, normalised. Parsed as a Windows path, which has the most separators and drives, on every system."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r} is outside the archive's folder")
    return str(PurePosixPath(name))


@contextlib.contextmanager
def _translate_errors(archive: Path) -> Iterator[None]:
    """Turns refusals, and the readers' exceptions on damaged archives, into one-line ArchiveErrors."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # on malicious bytes decoders raise any exception: IndexError, struct.error, ...
        why = getattr(error, "strerror", None) or one_line(error) or type(error).__name__
        advice = "take another copy, or set path to an unpacked folder"
        raise ArchiveError(f"{archive}: cannot be unpacked as tar or zip ({why}): {advice}") from error
