"""COCO: downloaded once, and only the drawn photos are unpacked."""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import server as web
from server import Server
from surroundings import photos_in

from recolor.core.downloads import DownloadError, Patience, RemoteFile
from recolor.sources.fetch import CocoParams, fetch, root

IMPATIENT = Patience(timeout=20, attempts=2, wait=0.01)
ARCHIVED = [f"val2017/{number:012d}.jpg" for number in range(20)]


@pytest.fixture(scope="module")
def coco_zip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = photos_in(tmp_path_factory.mktemp("coco"), ARCHIVED)
    with zipfile.ZipFile(folder / "val2017.zip", "w") as archive:
        archive.write(folder / "val2017", "val2017/")
        for name in ARCHIVED:
            archive.write(folder / name, name)
        archive.writestr("val2017/licence.txt", "not a photo")
    return (folder / "val2017.zip").read_bytes()


@pytest.fixture
def coco(coco_zip: bytes) -> Iterator[Server]:
    serving = Server(coco_zip)
    yield serving
    serving.stop()


def remote(server: Server) -> dict[str, RemoteFile]:
    url = server.url.replace("photos.zip", "val2017.zip")
    return {"val2017": RemoteFile(url, len(server.content), f"md5:{hashlib.md5(server.content).hexdigest()}")}


def test_coco_is_downloaded_once_and_a_draw_of_it_unpacked(coco: Server, tmp_path: Path) -> None:
    params = CocoParams(source="coco", limit=7)
    coco.script = [web.cut_after(2000), web.complete]
    listing = fetch(params, 42, tmp_path, remote=remote(coco), patience=IMPATIENT)
    folder = root(params, tmp_path)
    assert len(listing) == 7
    assert set(listing["path"]) < set(ARCHIVED)
    assert list(listing["path"]) == sorted(listing["path"])
    unpacked = {str(path.relative_to(folder)) for path in folder.rglob("*.*")} - {".val2017.zip.lock"}
    assert unpacked == {*listing["path"], "val2017.zip"}
    for row in listing.itertuples():
        assert hashlib.sha256((folder / str(row.path)).read_bytes()).hexdigest() == row.sha256 == row.group
    coco.stop()  # no further request, for the same draw or another
    pd.testing.assert_frame_equal(listing, fetch(params, 42, tmp_path, remote=remote(coco), patience=IMPATIENT))
    everything = fetch(CocoParams(source="coco"), 42, tmp_path, remote=remote(coco), patience=IMPATIENT)
    assert list(everything["path"]) == ARCHIVED
    assert set(fetch(params, 43, tmp_path, remote=remote(coco), patience=IMPATIENT)["path"]) != set(listing["path"])


def test_coco_without_network_names_the_folder(tmp_path: Path) -> None:
    nowhere = {"val2017": RemoteFile("http://127.0.0.1:1/val2017.zip", 5, f"md5:{0:032}")}
    with pytest.raises(DownloadError, match=rf"{tmp_path}/coco"):
        fetch(CocoParams(source="coco"), 42, tmp_path, remote=nowhere, patience=IMPATIENT)
