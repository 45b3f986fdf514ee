"""Downloads over lines that break, from servers that err, onto disks that are full."""

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import server as web
from server import Server
from surroundings import ordinary_user

from recolor.core import downloads
from recolor.core.downloads import DownloadError, Patience, RemoteFile, download
from recolor.core.storage import DiskFull, check_disk_space

CONTENT = np.random.default_rng(0).bytes(400_000)
IMPATIENT = Patience(timeout=20, attempts=3, wait=0.01)
HASTY = Patience(timeout=0.4, attempts=3, wait=0.01)  # where the server stalls


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server(CONTENT)
    yield serving
    serving.stop()


def remote(server: Server, size: int | None = len(CONTENT), content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile(server.url, size, f"md5:{hashlib.md5(content).hexdigest()}")


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {".photos.zip.lock"}


@pytest.mark.parametrize("size", [len(CONTENT), None], ids=["size known", "size unknown"])
@pytest.mark.parametrize(
    ("script", "starts"),
    [
        ([web.complete], [0]),
        ([web.cut_after(100_000), web.complete], [0, "more"]),
        ([*[web.cut_after(100_000)] * 3, web.complete], [0, "more", "more", "more"]),
        ([web.respond(500), web.respond(503), web.complete], [0, 0, 0]),
        ([web.respond(429), web.complete], [0, 0]),
        ([web.web_page, web.complete], [0, 0]),
        ([web.wrong_bytes, web.complete], [0, 0]),
        ([web.cut_after(100_000), web.wrong_bytes, web.complete], [0, "more", 0]),
        ([web.cut_after(100_000), web.no_ranges], [0, "more"]),
        ([web.cut_after(100_000), web.another_range, web.complete], [0, "more", 0]),
        ([web.cut_after(100_000), web.respond(500), web.complete], [0, "more", "more"]),
        ([web.cut_after(100_000), web.unknown_length], [0, "more"]),
        ([web.another_range, web.respond(416), web.complete], [0, 0, 0]),
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
        (web.respond(404), "404 Not Found", 1),
        (web.respond(403), "403 Forbidden", 1),
        (web.respond(500), "500 Internal", 3),
        (web.web_page, "web page", 3),
        (web.cut_after(0), "127.0.0.1", 3),
        (web.wrong_length, "has 399,000 bytes where the file has 400,000", 3),
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
    assert str(tmp_path) in str(failure.value)
    assert len(server.starts) == requests
    assert not (tmp_path / "photos.zip").exists()


@pytest.mark.parametrize("count", [0, 150_000])
def test_a_stalled_connection_is_retried(server: Server, tmp_path: Path, count: int) -> None:
    server.script = [web.stall_after(count), web.complete]
    assert download(remote(server), tmp_path, HASTY).read_bytes() == CONTENT
    assert (server.starts[1] > 0) == (count > 0)
    server.script, server.starts = [web.stall_after(0)], []
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        download(remote(server), tmp_path / "again", HASTY)
    assert server.starts == [0, 0, 0]


def test_the_next_run_resumes(server: Server, tmp_path: Path) -> None:
    server.script = [web.cut_after(300_000), web.respond(500)]
    with pytest.raises(DownloadError):
        download(remote(server), tmp_path, IMPATIENT)
    have = (tmp_path / "photos.zip.part").stat().st_size
    assert 200_000 < have <= 300_000
    server.script, server.starts = [web.complete], []
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT
    assert server.starts == [have]


@pytest.mark.parametrize("left", [b"of another file", CONTENT[:1000] + b"x" + CONTENT[1001:2000], CONTENT + b"more"])
def test_a_part_of_another_file_is_discarded(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "photos.zip.part").write_bytes(left)
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_a_damaged_file_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT[:-1] + b"x")
    assert download(remote(server), tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_a_file_put_there_by_hand_needs_no_network(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").write_bytes(CONTENT)
    file = RemoteFile("http://127.0.0.1:1/photos.zip", len(CONTENT), f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert download(file, tmp_path, IMPATIENT).read_bytes() == CONTENT


def test_no_network_is_an_error_of_one_line(tmp_path: Path) -> None:
    file = RemoteFile("http://127.0.0.1:1/photos.zip", None, f"sha256:{0:064}")
    with pytest.raises(DownloadError, match=r"^.*http://127.0.0.1:1/photos.zip.*$"):
        download(file, tmp_path, IMPATIENT)


def test_without_a_network_attempts_are_limited_by_offline(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hasty = Patience(timeout=20, attempts=3, wait=0.01, offline=1)
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1"):
        download(RemoteFile("http://127.0.0.1:1/photos.zip", None, f"md5:{0:032}"), tmp_path, hasty)
    assert "trying again" not in capfd.readouterr().err
    server.script = [web.hang_up, web.hang_up, web.complete]
    assert download(remote(server), tmp_path, hasty).read_bytes() == CONTENT
    assert len(server.starts) == 3


def test_of_two_at_once_the_second_waits_and_finds_the_file(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(downloads.tqdm, "write", lambda text, **_: shown.append(text))
    halfway = threading.Event()
    server.script = [web.wait_halfway(halfway), web.complete]
    with ThreadPoolExecutor() as pool:
        first = pool.submit(download, remote(server), tmp_path, IMPATIENT)
        while not server.starts:
            assert not first.done()
        second = pool.submit(download, remote(server), tmp_path, IMPATIENT)
        while not shown and len(server.starts) == 1:
            time.sleep(0.01)
        assert "photos.zip" in shown[0]
        halfway.set()
        assert first.result() == second.result() == tmp_path / "photos.zip"
    assert (tmp_path / "photos.zip").read_bytes() == CONTENT
    assert left_in(tmp_path) == {"photos.zip"}
    assert server.starts == [0]


def test_a_folder_that_cannot_be_written_gives_what_it_has() -> None:
    folder = Path(tempfile.mkdtemp())  # which an ordinary user can look into, unlike tmp_path
    (folder / "photos.zip").write_bytes(CONTENT)
    folder.chmod(0o555)
    file = RemoteFile("http://127.0.0.1:1/photos.zip", None, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    with ordinary_user():
        assert download(file, folder, IMPATIENT) == folder / "photos.zip"
    assert left_in(folder) == {"photos.zip"}
    shutil.rmtree(folder)


def test_a_long_check_is_announced(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for long, shown in ((len(CONTENT), "photos.zip.part: checking 0.0 GB\n"), (10**9, "")):
        monkeypatch.setattr(downloads, "LONG", long)
        download(remote(server), tmp_path / str(long), IMPATIENT)
        assert capfd.readouterr().err == shown
        download(remote(server), tmp_path / str(long), IMPATIENT)
        assert capfd.readouterr().err == shown.replace(".part", "")


# Full disks


def test_too_small_a_disk_is_refused_before_the_first_byte(server: Server, small_disk: Path) -> None:
    server.content = CONTENT * 4
    with pytest.raises(DiskFull, match=r"photos\.zip .*1\.6 MB"):
        download(remote(server, len(server.content), server.content), small_disk, IMPATIENT)
    assert sum(path.stat().st_size for path in small_disk.iterdir()) == 0


def test_a_disk_that_fills_while_downloading(server: Server, small_disk: Path) -> None:
    server.content, server.script = CONTENT * 4, [web.no_length]
    with pytest.raises(DiskFull, match=r"photos\.zip"):
        download(remote(server, None, server.content), small_disk, IMPATIENT)
    assert left_in(small_disk) == {"photos.zip.part"}


def test_a_device_that_is_always_full(tmp_path: Path) -> None:
    """The same where no disk can be mounted."""
    with (
        pytest.raises(DiskFull, match="the listing"),
        check_disk_space("the listing", tmp_path),
    ):
        Path("/dev/full").write_bytes(b"photos")


def test_other_faults_are_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), check_disk_space("the listing", tmp_path):
        (tmp_path / "nothing").read_bytes()
