"""One file from the network, whole and verified, over lines that break.

Pooch checks the hash and puts the file in place only when that is right. What it lacks is here: a download that goes on
where it stopped, in this run or a later one, and that notices a web page, or another file, while it arrives.
"""

import contextlib
import re
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

from recolor.core.errors import UserError
from recolor.core.storage import check_disk_space

CHUNK = 2**16  # what a broken connection loses at most
LONG = 10**9  # bytes that take some seconds to hash, and are told of before
TRY_LATER = {408, 425, 429}  # answers that ask for another attempt; so do all from 500 on


@dataclass(frozen=True)
class RemoteFile:
    """A file that never changes. `size`: bytes, None where it is not known. `hash`: "md5:" or "sha256:", then hexadecimal."""

    url: str
    size: int | None
    hash: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Patience:
    """`timeout`: seconds without a byte. `attempts`: failures in a row, with no progress between them, until giving up.

    `wait`: seconds before the second attempt, doubled before each further one. `offline`: attempts until giving up where not
    even a connection has come about, so that a machine without a network need not wait.
    """

    timeout: float = 30.0
    attempts: int = 5
    wait: float = 1.0
    offline: int = 5


class DownloadError(UserError):
    """A file that could not be had."""


PATIENT = Patience()


class _Failed(Exception):
    """This attempt came to nothing; the next may not."""


class _Refused(Exception):
    """The server does not give the file away, and will not the next time either."""


def download(file: RemoteFile, folder: Path, patience: Patience = PATIENT) -> Path:
    """`file` in `folder`, downloaded unless it is there already with the right hash; its path.

    What has arrived waits in `<name>.part`, and the next attempt or run asks the server for the rest. A file with another
    hash is never kept, and while another process downloads the same one, this one waits for it. Raises DiskFull, and
    DownloadError, which says what to do, when the server cannot be reached, says no, or has another file.
    """
    with _alone(file, folder):
        return _fetch(file, folder, patience)


def _fetch(file: RemoteFile, folder: Path, patience: Patience) -> Path:
    pooch.get_logger().setLevel("WARNING")  # what it is about to do, our own bar shows
    store = pooch.create(
        path=folder.resolve(), base_url="", registry={file.name: file.hash}, urls={file.name: file.url}
    )
    part = folder / f"{file.name}.part"

    def fetch(url: str, output: str, _: object) -> None:
        _transfer(file, part, patience)
        _tell_of_hashing(part)
        part.replace(output)

    _tell_of_hashing(folder / file.name)
    try:
        # A second round, from nothing: bytes that were left from an earlier version of the file give a wrong hash once.
        for last in (False, True):
            try:
                return Path(store.fetch(file.name, downloader=fetch))
            except ValueError as error:
                if last:
                    algorithm = file.hash.partition(":")[0].upper()
                    raise DownloadError(_advice(file, folder, f"what it sent has another {algorithm} hash")) from error
    except (_Failed, _Refused) as error:
        raise DownloadError(_advice(file, folder, str(error))) from error
    raise AssertionError


@contextlib.contextmanager
def _alone(file: RemoteFile, folder: Path) -> Iterator[None]:
    """Two that write the same `.part` spoil it: the second waits, and then finds the file."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{file.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{file.name}: another process is downloading it; waiting for that", file=sys.stderr)
        lock.acquire()
    except OSError:
        pass  # a folder that takes no lock takes no download either; what it holds already can be read all the same
    try:
        yield
    finally:
        lock.release()


def _tell_of_hashing(path: Path) -> None:
    if _size(path) >= LONG:
        tqdm.write(f"{path.name}: checking {_size(path) / 1e9:,.1f} GB", file=sys.stderr)


def _advice(file: RemoteFile, folder: Path, why: str) -> str:
    advice = f"run it again (it goes on where it stopped) or put the file into {folder} by hand"
    return f"cannot download {file.url}: {why}; {advice}"


def _transfer(file: RemoteFile, part: Path, patience: Patience) -> None:
    """Fills `part`, attempt after attempt, until it is whole."""
    furthest, failures, offline = _size(part), 0, True
    while True:
        try:
            return _attempt(file, part, patience.timeout)
        except (requests.RequestException, _Failed) as error:
            offline = offline and _is_offline(error)
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            why = str(error) if isinstance(error, _Failed) else _no_connection(file)
            if failures >= patience.attempts or (offline and failures >= patience.offline):
                raise _Failed(why) from error
            wait = patience.wait * 2 ** (failures - 1)
            tqdm.write(f"{file.name}: {why}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def _attempt(file: RemoteFile, part: Path, timeout: float) -> None:
    have = _size(part)
    if have and have == file.size:
        return
    # Not compressed on the way: lengths and offsets would be those of something else.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=timeout) as answer:
        start, total = _promise(answer, part, have)
        if file.size is not None and total not in (None, file.size):
            raise _Failed(f"the server offers {total:,} bytes where the file has {file.size:,}")
        total = total or file.size
        with check_disk_space(file.name, part.parent, total and total - start):
            _receive(answer, part, start, total, file.name)
    if total is not None and _size(part) != total:
        raise _Failed(f"it breaks off after {_size(part):,} of {total:,} bytes")


def _promise(answer: requests.Response, part: Path, have: int) -> tuple[int, int | None]:
    """From which byte on the server sends the file, and how long the file is, if it says so."""
    status = answer.status_code
    if status >= 500 or status in TRY_LATER:
        raise _Failed(f"the server answers {status} {answer.reason}")
    if status == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)  # longer than the file: no beginning of it
        raise _Failed(f"the server has no byte {have:,}")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise _Refused(f"the server answers {status} {answer.reason}")
    if "html" in answer.headers.get("Content-Type", ""):
        raise _Failed("the server sends a web page instead (is there a login or a proxy in the way?)")
    if status == requests.codes.ok:  # the whole of it, whatever was asked for
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if sent is None or int(sent[1]) != have:
        part.unlink(missing_ok=True)
        raise _Failed("the server sends another part of the file than was asked for")
    return have, None if sent[2] == "*" else int(sent[2])


def _receive(answer: requests.Response, part: Path, start: int, total: int | None, name: str) -> None:
    bar = tqdm(total=total, initial=start, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty())
    with part.open("r+b" if start else "wb") as out, bar:
        out.seek(start)
        for chunk in answer.iter_content(CHUNK):
            out.write(chunk)
            bar.update(len(chunk))
            if total is not None and out.tell() > total:
                break
    if total is not None and _size(part) > total:
        part.unlink(missing_ok=True)
        raise _Failed(f"the server sends more than {total:,} bytes")


def _is_offline(error: Exception) -> bool:
    """Whether there was no connection to begin with: no such name, no way there, refused, or nobody who answers."""
    return isinstance(error, requests.ConnectionError) and isinstance(next(iter(error.args), None), MaxRetryError)


def _no_connection(file: RemoteFile) -> str:
    return f"no lasting connection to {urllib.parse.urlsplit(file.url).netloc} (is the network up?)"


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
