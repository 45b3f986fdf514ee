"""Some files out of an archive that may have been made to do harm.

An archive is looked through before anything of it is written. One that holds a path leading out of its folder, a link, a
device, or contents out of all proportion is refused as a whole. Files are written one by one under names that have been
checked: `extractall`, with its permissions and owners, never comes into it.
"""

import contextlib
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Protocol, Self

from recolor.core.errors import UserError
from recolor.core.progress import progress
from recolor.core.storage import check_disk_space

MAX_RATIO = 100  # contents to archive, in bytes: photos are compressed already and come to about 1
# Bytes of a tar's long name or pax header. Names have some hundreds; tarfile reads such a header whole, and until 3.11.9 in a
# time that grows with the square of it (CVE-2024-6232).
MAX_HEADER = 2**14
METADATA = {  # kinds of tar headers that are followed by more about the next one
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
CHUNK = 2**20


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class ArchiveError(UserError):
    """An archive that is damaged, or that nothing is taken out of."""


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. `name`: relative, checked, with slashes. `place`: where its reader finds it."""

    name: str
    size: int
    place: Any
    modified: int | None = None


def members(archive: Path) -> Iterator[Member]:
    """The files in a zip or a tar (also a compressed one, and one that holds tars, like ImageNet's, of which each is a folder).

    Raises ArchiveError when the archive is damaged or holds anything but files and folders that stay inside it.
    """
    with _telling(archive):
        tar = _open_tar(archive)
        yield from _in_zip(archive) if tar is None else _in_tar(archive, tar)


def extract(archive: Path, wanted: Sequence[Member], folder: Path) -> None:
    """Writes `wanted`, which `members` gave, under `folder`. What is there already from an earlier run is left as it is.

    A file appears under its name when it is whole. Raises ArchiveError and DiskFull.
    """
    missing = [member for member in wanted if not _is_there(folder / member.name, member)]
    with (
        _telling(archive),
        check_disk_space(f"unpacking {archive.name}", folder, sum(member.size for member in missing)),
        _reading(archive) as read,
    ):
        for member in progress(missing, desc=f"unpacking {archive.name}"):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.parent / f".part-{os.getpid()}"
            try:
                with read(member) as source, part.open("wb") as out:
                    _copy(source, out, member)
                if member.modified is not None:
                    os.utime(part, (member.modified, member.modified))
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)


def _is_there(file: Path, member: Member) -> bool:
    """Whole, since only whole files get their name; of another archive when its size or time differs."""
    if not file.is_file():
        return False
    found = file.stat()
    return found.st_size == member.size and member.modified in (None, int(found.st_mtime))


def _check_ratio(archive: Path, unpacked: int, limit: int) -> None:
    if unpacked > limit:
        raise ArchiveError(f"{archive}: unpacks to more than {MAX_RATIO} times its size: refused as a bomb")


def _in_zip(archive: Path) -> Iterator[Member]:
    limit, total = MAX_RATIO * archive.stat().st_size, 0
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if info.is_dir():
                continue
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):  # 0: made where there are no such bits
                raise ArchiveError(f"{archive}: {info.filename!r} is a link or a device: refused")
            total += info.file_size
            _check_ratio(archive, total, limit)
            yield Member(_checked(archive, info.filename), info.file_size, info)


class _Header(tarfile.TarInfo):
    """A tar's header, looked at before tarfile acts on it: a negative size would lead it back, and names are read whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.size < 0 or (header.type in METADATA and header.size > MAX_HEADER):
            raise ValueError(f"a header gives {header.size:,} bytes to {header.name[:99]!r}")
        if header.type == tarfile.GNUTYPE_SPARSE:  # its map may be as long as it likes, and is read at once
            raise ValueError(f"{header.name[:99]!r} is sparse")
        return header

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise ValueError(f"{self.name[:99]!r} is sparse")


def _open_tar(archive: Path) -> tarfile.TarFile | None:
    """None when it is no tar, whatever else it may be."""
    try:
        return tarfile.open(archive, tarinfo=_Header)
    except tarfile.TarError:
        return None


def _in_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    with tar:
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
    """Its regular files. Where the next header would be is checked first: what lies before it, contents or not, is unpacked."""
    limit, reached = MAX_RATIO * archive.stat().st_size, 0
    while (info := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # a million of them, in ImageNet's, take a gigabyte
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
    return min(max(int(info.mtime), 0), 2**31 - 1)


def _checked(archive: Path, name: str) -> str:
    """`name`, normalised. Read as Windows does, which knows every separator and drive: strict enough for all systems."""
    path = PureWindowsPath(name)
    if path.drive or path.root or ".." in path.parts or not path.parts or "\0" in name:
        raise ArchiveError(f"{archive}: {name!r} leads out of its folder: refused")
    return str(PurePosixPath(name))


@contextlib.contextmanager
def _reading(archive: Path) -> Iterator[Callable[[Member], AbstractContextManager[Readable]]]:
    """A function that opens a member. A tar, its compression undone, is simply read at the member's place."""
    if (tar := _open_tar(archive)) is not None:
        with tar:
            stream = tar.fileobj
            assert stream is not None

            def at_place(member: Member) -> AbstractContextManager[Readable]:
                stream.seek(member.place)
                return contextlib.nullcontext(stream)

            yield at_place
    else:
        with zipfile.ZipFile(archive) as zipped:
            yield lambda member: zipped.open(member.place)


def _copy(source: Readable, out: IO[bytes], member: Member) -> None:
    left = member.size
    while left:
        chunk = source.read(min(left, CHUNK))
        if not chunk:
            raise EOFError(f"{member.name} is cut short")
        out.write(chunk)
        left -= len(chunk)


@contextlib.contextmanager
def _telling(archive: Path) -> Iterator[None]:
    """Whatever the readers say of damaged bytes, in one line."""
    try:
        yield
    except UserError:
        raise
    except (NotImplementedError, RuntimeError, OverflowError) as error:  # encrypted, or compressed in an unusual way
        raise ArchiveError(
            f"{archive}: cannot be unpacked here ({error}): unpack it yourself and give the folder"
        ) from error
    except OSError as error:
        raise ArchiveError(f"{archive}: cannot be unpacked ({error.strerror or error})") from error
    except Exception as error:  # on hostile bytes decoders raise anything: IndexError, struct.error, ...
        why = " ".join(str(error).split()) or type(error).__name__
        raise ArchiveError(f"{archive}: not a zip or tar archive, or a damaged one ({why})") from error
