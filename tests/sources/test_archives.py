"""Archives: their contents are extracted, and malicious ones are refused."""

import gzip
import io
import os
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from surroundings import few_or_many, search

from recolor.core.storage import DiskFull
from recolor.sources.archives import ArchiveError, extract, members

CONTENT = np.random.default_rng(0).bytes(400_000)


def zipped(folder: Path, files: dict[str, bytes], **options: int) -> Path:
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tarred(folder: Path, *entries: tarfile.TarInfo | tuple[str, bytes], kind: str = "") -> Path:
    path = folder / f"photos.tar{kind and '.' + kind}"
    with tarfile.open(path, f"w:{kind}") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size, info.mtime = len(entry[1]), 1_000_000_000
                archive.addfile(info, io.BytesIO(entry[1]))
    return path


def special(kind: bytes, name: str = "evil.jpg", target: str = "../../etc/passwd") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def link_in_zip(folder: Path) -> Path:
    path = folder / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo("link.jpg")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    return path


def headers(folder: Path, *parts: bytes | tarfile.TarInfo) -> Path:
    """A compressed tar of headers as they are given, and of other bytes between them."""
    blocks = (part if isinstance(part, bytes) else part.tobuf(tarfile.GNU_FORMAT) for part in parts)
    path = folder / "photos.tar.gz"
    with gzip.open(path, "wb") as tar:
        tar.write(b"".join(blocks) + bytes(2 * tarfile.BLOCKSIZE))
    return path


def header(kind: bytes, size: int, name: str = "evil.jpg") -> tarfile.TarInfo:
    info = special(kind, name)
    info.size = size
    return info


def nameless(folder: Path) -> Path:
    path = zipped(folder, {"a.jpg": b"evil"})
    path.write_bytes(path.read_bytes().replace(b"a.jpg", b"\0.jpg"))
    return path


FINE = ("class/fine.jpg", b"fine")
LOT = 5 * 10**6  # bytes, of which gzip makes a few thousand
NAMES = [
    "../evil.jpg",
    "/tmp/evil.jpg",
    "a/../../evil.jpg",
    "C:\\evil.jpg",
    "..\\evil.jpg",
    "C:evil.jpg",
    "\\\\host\\evil.jpg",
    ".",
]
HARMFUL: dict[str, Callable[[Path], Path]] = {
    **{f"zip {name}": lambda folder, name=name: zipped(folder, {FINE[0]: b"", name: b"evil"}) for name in NAMES},
    **{f"tar {name}": lambda folder, name=name: tarred(folder, FINE, (name, b"evil")) for name in NAMES},
    "link in a zip": link_in_zip,
    "link": lambda folder: tarred(folder, FINE, special(tarfile.SYMTYPE)),
    "link to a folder, and a file through it": lambda folder: tarred(
        folder, special(tarfile.SYMTYPE, "class", "/tmp"), FINE
    ),
    "hard link": lambda folder: tarred(folder, FINE, special(tarfile.LNKTYPE)),
    "fifo": lambda folder: tarred(folder, FINE, special(tarfile.FIFOTYPE)),
    "device": lambda folder: tarred(folder, FINE, special(tarfile.CHRTYPE)),
    "sparse file": lambda folder: headers(folder, header(tarfile.GNUTYPE_SPARSE, 0)),
    "bomb in a zip": lambda folder: zipped(folder, {"a.jpg": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED),
    "bomb in a tar": lambda folder: tarred(folder, FINE, ("a.jpg", bytes(10**7)), kind="gz"),
    "bomb in an inner tar": lambda folder: tarred(folder, FINE, ("n01.tar", bytes(LOT)), kind="gz"),
    "bomb of folders": lambda folder: headers(folder, *[header(tarfile.DIRTYPE, 0, "class")] * 2000),
    "bomb in a pax header": lambda folder: headers(
        folder, header(tarfile.XHDTYPE, LOT), bytes(LOT + -LOT % 512), header(tarfile.REGTYPE, 0)
    ),
    "bomb in a long name": lambda folder: headers(
        folder, header(tarfile.GNUTYPE_LONGNAME, LOT), b"a" * (LOT + -LOT % 512), header(tarfile.REGTYPE, 0)
    ),
    "long names of long names": lambda folder: headers(
        folder, *[header(tarfile.GNUTYPE_LONGNAME, 512), b"a" * 512] * 2000, header(tarfile.REGTYPE, 0)
    ),
    "no name in a zip": nameless,
    "harm in an inner tar": lambda folder: tarred(
        folder, ("n01.tar", tarred(folder, FINE, ("../../evil.jpg", b"evil")).read_bytes())
    ),
    "cut tar": lambda folder: cut(tarred(folder, FINE, ("b.jpg", bytes(9000)))),
    "cut tar.gz": lambda folder: cut(tarred(folder, FINE, ("b.jpg", CONTENT), kind="gz")),
    "cut tar.xz": lambda folder: cut(tarred(folder, FINE, ("b.jpg", CONTENT), kind="xz")),
    "cut zip": lambda folder: cut(zipped(folder, {"a.jpg": CONTENT})),
    "damaged zip": lambda folder: damaged(zipped(folder, {"a.jpg": CONTENT})),
    "encrypted zip": lambda folder: encrypted(zipped(folder, {"a.jpg": CONTENT})),
    "no archive": lambda folder: cut(folder / "made-up.tar"),
    "empty file": lambda folder: cut(folder / "made-up.tar", 0),
}


def cut(path: Path, length: int = 6000) -> Path:
    path.write_bytes((path.read_bytes() if path.exists() else b"no archive at all " * 999)[:length])
    return path


def damaged(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)
    return path


def encrypted(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flag in the file's header
    data[data.rindex(b"PK\1\2") + 8] |= 1  # and in the directory
    path.write_bytes(data)
    return path


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("harm", HARMFUL)
def test_malicious_archives_are_refused_and_nothing_is_written(harm: str, tmp_path: Path) -> None:
    archive, out = HARMFUL[harm](tmp_path), tmp_path / "in" / "out"
    out.mkdir(parents=True)
    before = tree(tmp_path)
    with pytest.raises(ArchiveError, match=r"^.*photos|^.*made-up") as refusal:
        extract(archive, list(members(archive)), out)
    assert "\n" not in str(refusal.value)
    written = tree(tmp_path) - before
    assert written <= {out / "class", out / "class" / "fine.jpg"}  # a damaged archive may have some intact files
    assert not written or harm.startswith("cut")


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_tar_gives_what_it_holds_also_from_within_tars(tmp_path: Path, kind: str) -> None:
    inner = tarred(tmp_path, ("a.jpg", CONTENT[:5000]), ("b.jpg", b"b" * 700)).read_bytes()
    archive = tarred(tmp_path, ("x/one.jpg", CONTENT[:100]), ("n01.tar", inner), ("./y/two.jpg", CONTENT), kind=kind)
    found = {member.name: member for member in members(archive)}
    assert list(found) == ["x/one.jpg", "n01/a.jpg", "n01/b.jpg", "y/two.jpg"]
    extract(archive, [found[name] for name in ("n01/a.jpg", "n01/b.jpg", "y/two.jpg")], tmp_path / "out")
    assert not (tmp_path / "out" / "x").exists()
    assert (tmp_path / "out" / "n01" / "a.jpg").read_bytes() == CONTENT[:5000]
    assert (tmp_path / "out" / "n01" / "b.jpg").read_bytes() == b"b" * 700
    assert (tmp_path / "out" / "y" / "two.jpg").read_bytes() == CONTENT


def test_what_is_there_already_is_not_written_again_but_what_differs_is(tmp_path: Path) -> None:
    archive = tarred(tmp_path, ("same.jpg", b"12345"), ("shorter.jpg", b"12345"), ("older.jpg", b"12345"))
    out = tmp_path / "out"
    extract(archive, list(members(archive)), out)
    (out / "shorter.jpg").write_bytes(b"1234")
    os.utime(out / "older.jpg", (5, 5))
    inodes = {path.name: path.stat().st_ino for path in out.glob("*.jpg")}
    extract(archive, list(members(archive)), out)
    assert {path.name for path in out.glob("*.jpg") if path.stat().st_ino != inodes[path.name]} == {
        "shorter.jpg",
        "older.jpg",
    }
    assert {path.read_bytes() for path in out.glob("*.jpg")} == {b"12345"}


def test_a_disk_that_fills_while_unpacking(small_disk: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path, {f"{number}.jpg": CONTENT for number in range(2)})
    (small_disk / "other").write_bytes(bytes(500_000))
    with pytest.raises(DiskFull, match=r"photos\.zip .*0\.8 MB"):
        extract(archive, list(members(archive)), small_disk / "out")
    assert list((small_disk / "out").iterdir()) == []


def test_a_disk_that_fills_on_the_way_has_complete_photos_only_and_the_next_run_continues(
    small_disk: Path, tmp_path: Path
) -> None:
    """Small files need more space than the sum of their sizes."""
    archive = zipped(tmp_path, {f"{number}.jpg": b"photo" for number in range(300)})
    with pytest.raises(DiskFull, match=r"photos\.zip"):
        extract(archive, list(members(archive)), small_disk / "out")
    unpacked = list((small_disk / "out").iterdir())
    assert 100 < len(unpacked) < 300
    assert {path.read_bytes() for path in unpacked} == {b"photo"}
    assert {path.suffix for path in unpacked} == {".jpg"}
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    extract(archive, list(members(archive)), small_disk / "out")
    assert len(list((small_disk / "out").iterdir())) == 300


@few_or_many
def test_any_mutation_of_an_archive_stays_in_its_folder(
    examples: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    @given(data=st.data(), kind=st.sampled_from(["zip", "tar", "gz"]))
    @search(examples)
    def holds(data: st.DataObject, kind: str) -> None:
        folder = tmp_path_factory.mktemp("mutated")
        files = [("class/a.jpg", CONTENT[:300]), ("class/b.jpg", b"b" * 700)]
        path = (
            zipped(folder, dict(files)) if kind == "zip" else tarred(folder, *files, kind="" if kind == "tar" else kind)
        )
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4) | st.just(b"../"))
        path.write_bytes(content)
        before = tree(folder)
        try:
            extract(path, list(members(path)), folder / "out")
        except (ArchiveError, DiskFull) as error:
            assert "\n" not in str(error)
        assert all((folder / "out") in (path, *path.parents) for path in tree(folder) - before)

    holds()
