"""Extracts some files from an archive that may be malicious.

The whole archive is checked before anything is written. It is refused if it contains a path outside its folder, a link, a
device, or data far larger than itself; `tarfile.data_filter` accepts links inside the folder and does not limit sizes.
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
from typing import IO, Any, Self, cast

from recolor.core.errors import UserError, one_line
from recolor.core.iterators import progress_bar
from recolor.core.storage import check_disk_space

MAX_RATIO = 100  # unpacked size to archive size; photos, which are compressed already, have about 1
# Bytes of a tar's long name or pax header; names have some hundreds. Before Python 3.11.10 tarfile parses such a header in
# quadratic time (CVE-2024-6232).
MAX_HEADER = 2**14
# Types of tar headers whose data describes the next one.
METADATA = {*tarfile.GNU_TYPES, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE}


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


def _check_ratio(archive: Path, unpacked: int, limit: int) -> None:
    if unpacked > limit:
        raise ArchiveError(f"{archive}: unpacks to more than {MAX_RATIO} times its size: refused")


def _in_zip(archive: Path, zipped: zipfile.ZipFile) -> Iterator[Member]:
    limit, total = MAX_RATIO * archive.stat().st_size, 0
    for info in zipped.infolist():
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: made on a system without file types
            raise ArchiveError(f"{archive}: {info.filename!r} is a link or a device: refused")
        total += info.file_size
        _check_ratio(archive, total, limit)
        yield Member(_checked(archive, info.filename), info.file_size, info)


class _Header(tarfile.TarInfo):
    """A tar's header, checked before tarfile uses it: it reads names in one piece, and a negative size causes endless loops."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in METADATA and header.size > MAX_HEADER):
            raise ValueError(f"the header of {header.name[:99]!r} has {header.size:,} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:  # its map of blocks has no size limit
            raise ValueError(f"{header.name[:99]!r} is sparse")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise ValueError(f"{self.name[:99]!r} is sparse")


def _open(archive: Path) -> tarfile.TarFile | zipfile.ZipFile:
    try:
        return tarfile.open(archive, tarinfo=_Header)
    except tarfile.TarError:
        return zipfile.ZipFile(archive)


def _content(opened: tarfile.TarFile | zipfile.ZipFile, member: Member) -> IO[bytes]:
    if isinstance(opened, zipfile.ZipFile):
        return opened.open(member.place)
    info = tarfile.TarInfo(member.name)
    info.size, info.offset_data = member.size, member.place
    return cast("IO[bytes]", opened.extractfile(info))


def _in_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in _files(archive, tar):
        name = _checked(archive, info.name)
        if not name.endswith(".tar"):
            yield Member(name, info.size, info.offset_data, _time(info))
            continue
        with tarfile.open(fileobj=tar.extractfile(info), mode="r:", tarinfo=_Header) as inner:
            for file in _files(archive, inner):
                inside = _checked(archive, f"{name.removesuffix('.tar')}/{_checked(archive, file.name)}")
                yield Member(inside, file.size, info.offset_data + file.offset_data, _time(file))


def _files(archive: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The regular files of `tar`. The offset of the next header is checked first: all before it gets decompressed."""
    limit, reached = MAX_RATIO * archive.stat().st_size, 0
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # ImageNet's million members need a gigabyte
        if info.size < 0 or tar.offset <= reached:
            raise ValueError(f"{info.name!r} has {info.size:,} bytes")
        reached = tar.offset
        _check_ratio(archive, reached, limit)
        if info.isdir():
            continue
        if not info.isreg() or info.issparse():
            raise ArchiveError(f"{archive}: {info.name!r} is a link, a device or sparse: refused")
        yield info


def _time(info: tarfile.TarInfo) -> int:
    """The file's time, limited to what every file system can store: a header may hold any number."""
    return int(min(max(0, info.mtime), 2**31 - 1))  # also of NaN


def _checked(archive: Path, name: str) -> str:
    """`name`, normalised. Parsed as a Windows path, which has the most separators and drives, on every system."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or not path.parts or "\0" in name:
        raise ArchiveError(f"{archive}: {name!r} is outside the archive's folder: refused")
    return str(PurePosixPath(name))


@contextlib.contextmanager
def _translate_errors(archive: Path) -> Iterator[None]:
    """Turns the readers' exceptions on damaged archives into one-line ArchiveErrors."""
    try:
        yield
    except UserError:
        raise
    except (NotImplementedError, RuntimeError, OverflowError) as error:  # encrypted, or an unsupported compression
        raise ArchiveError(f"{archive}: cannot be unpacked here ({error}): set path to an unpacked folder") from error
    except OSError as error:
        raise ArchiveError(f"{archive}: cannot be unpacked ({error.strerror or error})") from error
    except Exception as error:  # on malicious bytes decoders raise any exception: IndexError, struct.error, ...
        why = one_line(error) or type(error).__name__
        raise ArchiveError(f"{archive}: not a zip or tar archive, or damaged ({why})") from error
