"""Downloads a file, resumes within a run and across runs, and verifies its hash."""

import contextlib
import hashlib
import re
import sys
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError

from recolor.core.errors import UserError
from recolor.core.storage import check_disk_space

CHUNK = 2**16  # the most that a broken connection loses
LONG = 10**9  # bytes; hashing this many takes seconds and is announced
TRY_LATER = {408, 425, 429}  # status codes to retry, like all from 500 on


@dataclass(frozen=True)
class RemoteFile:
    """A file that never changes. `size`: bytes, None if unknown. `hash`: "md5:" or "sha256:", then hexadecimal digits."""

    url: str
    size: int | None
    hash: str

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Patience:
    """When an attempt fails, and how many are made."""

    timeout: float = 30.0  # seconds without a byte
    attempts: int = 5  # consecutive failures without progress before giving up
    wait: float = 1.0  # seconds before the second attempt, doubled each time
    offline: int = 5  # attempts before giving up if no connection could be made at all


class DownloadError(UserError):
    """A file could not be downloaded."""


PATIENT = Patience()


class _Failed(Exception):
    """This attempt failed; another one may succeed."""


class _Refused(Exception):
    """The server refuses the file; another attempt would fail too."""


def download(file: RemoteFile, folder: Path, patience: Patience = PATIENT) -> Path:
    """Downloads `file` into `folder` unless it is there with the right hash, and returns its path.

    Received bytes stay in `<name>.part`; the next attempt or run requests only the rest. If another process is downloading the
    same file, this one waits. Raises DiskFull, and DownloadError if the server cannot be reached, refuses, or has another file.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    algorithm, _, expected = file.hash.partition(":")
    with _locked(file, folder):
        if _digest(path, algorithm) == expected:
            return path
        try:
            for _ in range(2):  # a .part of an earlier version of the file gives one wrong hash
                _transfer(file, part, patience)
                if _digest(part, algorithm) == expected:
                    return part.replace(path)
                part.unlink()
            raise _Refused(f"the downloaded file has another {algorithm.upper()} hash")
        except (_Failed, _Refused) as error:
            advice = f"run it again (it resumes), or put the file into {folder} yourself"
            raise DownloadError(f"cannot download {file.url}: {error}; {advice}") from error


@contextlib.contextmanager
def _locked(file: RemoteFile, folder: Path) -> Iterator[None]:
    """One process at a time: two that write the same `.part` would corrupt it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{file.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        tqdm.write(f"{file.name}: another process is downloading it; waiting for that", file=sys.stderr)
        lock.acquire()
    except OSError:
        pass  # a read-only folder: no download is possible, but a file that is there can be used
    try:
        yield
    finally:
        lock.release()


def _digest(path: Path, algorithm: str) -> str | None:
    if not path.exists():
        return None
    if _size(path) >= LONG:
        tqdm.write(f"{path.name}: checking {_size(path) / 1e9:,.1f} GB", file=sys.stderr)
    with path.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()


def _transfer(file: RemoteFile, part: Path, patience: Patience) -> None:
    """Retries until `part` is complete."""
    furthest, failures, offline = _size(part), 0, True
    while True:
        try:
            return _attempt(file, part, patience.timeout)
        except (requests.RequestException, _Failed) as error:
            # No connection could be made: unknown host, no route, refused, or no response.
            offline &= isinstance(error, requests.ConnectionError) and isinstance((*error.args, None)[0], MaxRetryError)
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            host = urllib.parse.urlsplit(file.url).netloc
            why = str(error) if isinstance(error, _Failed) else f"no stable connection to {host} (is the network up?)"
            if failures >= patience.attempts or (offline and failures >= patience.offline):
                raise _Failed(why) from error
            wait = patience.wait * 2 ** (failures - 1)
            tqdm.write(f"{file.name}: {why}; trying again in {wait:g} s", file=sys.stderr)
            time.sleep(wait)


def _attempt(file: RemoteFile, part: Path, timeout: float) -> None:
    have = _size(part)
    if have and have == file.size:
        return
    # Without compression, which would change lengths and offsets.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(file.url, headers=headers, stream=True, timeout=timeout) as response:
        start, total = _parse_headers(response, part, have)
        if file.size is not None and total not in (None, file.size):
            raise _Failed(f"the server has {total:,} bytes where the file has {file.size:,}")
        total = total or file.size
        bar = tqdm(total=total, initial=start, desc=file.name, unit="B", unit_scale=True, disable=None)
        space = check_disk_space(file.name, part.parent, total and total - start)
        with space, part.open("ab" if start else "wb") as out, bar:
            for chunk in response.iter_content(CHUNK):
                out.write(chunk)
                bar.update(len(chunk))
                if total is not None and out.tell() > total:
                    break
    if total is not None and _size(part) > total:
        part.unlink()
        raise _Failed(f"the server sends more than {total:,} bytes")
    if total is not None and _size(part) < total:
        raise _Failed(f"the connection broke after {_size(part):,} of {total:,} bytes")


def _parse_headers(response: requests.Response, part: Path, have: int) -> tuple[int, int | None]:
    """The first byte that the server sends, and the length of the file, None if unknown."""
    status = response.status_code
    if status >= 500 or status in TRY_LATER:
        raise _Failed(f"the server answered {status} {response.reason}")
    if status == requests.codes.requested_range_not_satisfiable:
        part.unlink(missing_ok=True)  # longer than the file: not a part of it
        raise _Failed(f"the server has fewer than {have:,} bytes")
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise _Refused(f"the server answered {status} {response.reason}")
    if "html" in response.headers.get("Content-Type", ""):
        raise _Failed("the server sends a web page instead of the file (a login or a proxy?)")
    if status == requests.codes.ok:  # the complete file, even if a range was requested
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if sent is None or int(sent[1]) != have:
        part.unlink(missing_ok=True)
        raise _Failed("the server sends another range than was requested")
    return have, None if sent[2] == "*" else int(sent[2])


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
