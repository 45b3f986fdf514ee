"""Downloads over lines that break, from servers that err; archives that mean harm; disks that are full."""

import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import server as web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server import Server

from recolor import archives
from recolor.archives import ArchiveError, extract, members
from recolor.disk import DiskFull, room_for
from recolor.downloads import DownloadError, Patience, RemoteFile, download

CONTENT = np.random.default_rng(0).bytes(400_000)
IMPATIENT = Patience(timeout=20, attempts=3, wait=0.01)
HASTY = Patience(timeout=0.4, attempts=3, wait=0.01)  # where the server stalls


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server(CONTENT)
    yield serving
    serving.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True).returncode
    ):
        pytest.skip("mounting a small disk takes more rights than this user has")
    yield disk
    subprocess.run(["umount", disk], check=True)


def remote(server: Server, size: int | None = len(CONTENT), content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(server.url, size, hashlib.md5(content).hexdigest())


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "size unknown"])
@pytest.mark.parametrize(
    ("script", "starts"),
    [
        ([web.whole], [0]),
        ([web.cut_after(100_000), web.whole], [0, "more"]),
        ([*[web.cut_after(100_000)] * 3, web.whole], [0, "more", "more", "more"]),
        ([web.answer(500), web.answer(503), web.whole], [0, 0, 0]),
        ([web.answer(429), web.whole], [0, 0]),
        ([web.web_page, web.whole], [0, 0]),
        ([web.wrong_bytes, web.whole], [0, 0]),
        ([web.cut_after(100_000), web.wrong_bytes, web.whole], [0, "more", 0]),
        ([web.cut_after(100_000), web.no_ranges], [0, "more"]),
        ([web.cut_after(100_000), web.another_range, web.whole], [0, "more", 0]),
        ([web.cut_after(100_000), web.answer(500), web.whole], [0, "more", "more"]),
        ([web.no_length], [0]),
    ],
)
def test_the_right_file_arrives_in_the_end(
    server: Server, tmp_path: Path, script: list[web.Behaviour], starts: list[object], size: int | None
) -> None:
    server.script = list(script)
    path = download(remote(server, size), tmp_path, IMPATIENT)
    assert path.read_bytes() == CONTENT
    assert left_in(tmp_path) == {"photos.zip"}
    assert ["more" if start else 0 for start in server.starts] == starts
    requests = len(server.starts)
    assert download(remote(server, size), tmp_path, IMPATIENT) == path
    assert len(server.starts) == requests  # what is there is not fetched again


@pytest.mark.parametrize(
    ("behaviour", "reason", "requests"),
    [
        (web.answer(404), "404 Not Found", 1),
        (web.answer(403), "403 Forbidden", 1),
        (web.answer(500), "500 Internal", 3),
        (web.web_page, "web page", 3),
        (web.cut_after(0), "no lasting connection to 127.0.0.1", 3),
        (web.wrong_length, "offers 399,000 bytes where the file has 400,000", 3),
        (web.too_much, "more than 400,000 bytes", 3),
        (web.wrong_bytes, "another MD5", 2),
    ],
)
def test_a_wrong_file_is_never_kept(
    server: Server, tmp_path: Path, behaviour: web.Behaviour, reason: str, requests: int
) -> None:
    server.script = [behaviour]
    with pytest.raises(DownloadError, match=reason) as failure:
        download(remote(server), tmp_path, IMPATIENT)
    assert "\n" not in str(failure.value)
    assert f"put the file into {tmp_path} by hand" in str(failure.value)
    assert len(server.starts) == requests
    assert not (tmp_path / "photos.zip").exists()


@pytest.mark.parametrize("count", [0, 150_000])
def test_a_stalled_line_is_given_up_and_tried_again(server: Server, tmp_path: Path, count: int) -> None:
    server.script = [web.stall_after(count), web.whole]
    assert download(remote(server), tmp_path, HASTY).read_bytes() == CONTENT
    assert (server.starts[1] > 0) == (count > 0)
    server.script, server.starts = [web.stall_after(0)], []
    with pytest.raises(DownloadError, match=r"no lasting connection to 127\.0\.0\.1"):
        download(remote(server), tmp_path / "again", HASTY)
    assert server.starts == [0, 0, 0]


def test_the_next_run_goes_on_where_this_one_stopped(server: Server, tmp_path: Path) -> None:
    server.script = [web.cut_after(300_000), web.answer(500)]
    with pytest.raises(DownloadError):
        download(remote(server), tmp_path, IMPATIENT)
    have = (tmp_path / "photos.zip.part").stat().st_size
    assert 200_000 < have <= 300_000
    server.script, server.starts = [web.whole], []
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT
    assert server.starts == [have]


@pytest.mark.parametrize("left", [b"of another file", CONTENT[:1000] + b"x" + CONTENT[1001:2000], CONTENT + b"more"])
def test_left_overs_of_another_file_do_no_harm(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "photos.zip.part").write_bytes(left)
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT[:-1] + b"x")
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    file = RemoteFile("http://127.0.0.1:1/photos.zip", len(CONTENT), hashlib.md5(CONTENT).hexdigest())
    assert download(file, tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_no_network_is_told_in_one_line(tmp_path: Path) -> None:
    file = RemoteFile("http://127.0.0.1:1/photos.zip", None, "0" * 32)
    with pytest.raises(
        DownloadError, match=r"^cannot download http://127.0.0.1:1/photos.zip: no lasting connection .*$"
    ):
        download(file, tmp_path, IMPATIENT)


# Full disks


def test_too_small_a_disk_is_refused_before_the_first_byte(server: Server, small_disk: Path) -> None:
    server.content = CONTENT * 4
    with pytest.raises(DiskFull, match=r"photos.zip needs 1.6 MB, and .*disk has 1.0 MB left"):
        download(remote(server, len(server.content), server.content), small_disk, IMPATIENT)
    assert sum(path.stat().st_size for path in small_disk.iterdir()) == 0


def test_a_disk_that_fills_while_downloading(server: Server, small_disk: Path) -> None:
    server.content, server.script = CONTENT * 4, [web.no_length]
    with pytest.raises(DiskFull, match=r"photos.zip does not fit, and .*disk has 0.0 MB left"):
        download(remote(server, None, server.content), small_disk, IMPATIENT)
    assert left_in(small_disk) == {"photos.zip.part"}


def test_a_disk_that_fills_while_unpacking(small_disk: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path, {f"{number}.jpg": CONTENT for number in range(2)})
    (small_disk / "other").write_bytes(bytes(500_000))
    with pytest.raises(DiskFull, match=r"unpacking photos.zip needs 0.8 MB, and .* has 0.5 MB left"):
        extract(archive, list(members(archive)), small_disk / "out")
    assert left_in(small_disk / "out") == set()


def test_a_device_that_is_always_full(tmp_path: Path) -> None:
    """The same where no disk can be mounted."""
    with pytest.raises(DiskFull, match="disk full: the listing does not fit"), room_for("the listing", tmp_path):
        Path("/dev/full").write_bytes(b"photos")


def test_other_faults_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), room_for("the listing", tmp_path):
        (tmp_path / "nothing").read_bytes()


# Archives


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


FINE = ("class/fine.jpg", b"fine")
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
    "bomb in a zip": lambda folder: zipped(folder, {"a.jpg": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED),
    "bomb in a tar": lambda folder: tarred(folder, FINE, ("a.jpg", bytes(10**7)), kind="gz"),
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
    data[6] |= 1  # the flag in the file's own header
    data[data.rindex(b"PK\1\2") + 8] |= 1  # and in the directory
    path.write_bytes(data)
    return path


def tree(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("harm", HARMFUL)
def test_harm_is_refused_and_nothing_is_written(harm: str, tmp_path: Path) -> None:
    archive, out = HARMFUL[harm](tmp_path), tmp_path / "in" / "out"
    out.mkdir(parents=True)
    before = tree(tmp_path)
    with pytest.raises(ArchiveError, match=r"^.*photos|^.*made-up") as refusal:
        extract(archive, list(members(archive)), out)
    assert "\n" not in str(refusal.value)
    written = tree(tmp_path) - before
    assert written <= {out / "class", out / "class" / "fine.jpg"}  # a damaged archive may have given what was whole
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


def test_an_interrupted_unpacking_leaves_no_half_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path, {"a.jpg": CONTENT, "b.jpg": CONTENT})
    copy = archives._copy

    def dies_in_b(source: archives.Readable, out: io.BufferedWriter, member: archives.Member) -> None:
        copy(source, out, member)
        if member.name == "b.jpg":
            raise KeyboardInterrupt

    monkeypatch.setattr(archives, "_copy", dies_in_b)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, list(members(archive)), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.jpg")} == {"a.jpg"}


@given(data=st.data(), kind=st.sampled_from(["zip", "tar", "gz"]))
@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_any_mutation_of_an_archive_stays_in_its_folder(
    data: st.DataObject, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("mutated")
    files = [("class/a.jpg", CONTENT[:300]), ("class/b.jpg", b"b" * 700)]
    path = zipped(folder, dict(files)) if kind == "zip" else tarred(folder, *files, kind="" if kind == "tar" else kind)
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
