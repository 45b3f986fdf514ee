"""Atomic writes, permissions, and one-line errors on a full disk."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file
from surroundings import mounted

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull, atomic_file, atomic_folder, user_output
from recolor.models import folder as model_folder
from recolor.models.folder import save_generator
from recolor.models.unet import UNetGenerator, UNetParams
from recolor.training import checkpoints as run_checkpoints
from recolor.training.checkpoints import Checkpoints


def state(kilobytes: int) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((kilobytes * 250,), float(kilobytes))}


@pytest.fixture
def unforeseen(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if another program took the room after it was asked for."""
    monkeypatch.setattr(model_folder, "tensor_bytes", lambda tensors: 0)
    monkeypatch.setattr(run_checkpoints, "tree_leaves", lambda state: [])


def test_a_checkpoint_that_does_not_fit_is_refused_beforehand_and_the_last_one_stays(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "run")
    checkpoints.save(1, state(300))
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with pytest.raises(DiskFull, match=r"a checkpoint .*0\.9 MB.*run .*0\.7 MB"):
        checkpoints.save(2, state(900))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


@pytest.mark.usefixtures("unforeseen")
def test_a_disk_that_fills_during_a_checkpoint_leaves_the_last_one(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "run")
    checkpoints.save(1, state(300))
    with pytest.raises(DiskFull, match="a checkpoint"):
        checkpoints.save(2, state(900))
    loaded = checkpoints.load(warn=pytest.fail)
    assert torch.equal(loaded["weights"], state(300)["weights"])
    checkpoints.save(2, state(100))  # room again
    assert checkpoints.newest() == small_disk / "run" / "000000002.pt"


@pytest.mark.usefixtures("unforeseen")
def test_a_disk_that_fills_during_a_model_leaves_no_model(small_disk: Path) -> None:
    generator = UNetGenerator(UNetParams(kind="unet", filters=32, downs=4, dropout=0.5))
    with pytest.raises(DiskFull, match="the model"), atomic_folder(small_disk / "gan", "the model") as folder:
        save_generator(folder, generator, {})
    assert {path.name for path in small_disk.iterdir()} <= {".gan.lock"}


def test_a_disk_without_room_for_another_file_is_reported(tmp_path: Path) -> None:
    line = "{} .* inode"
    with mounted(tmp_path / "disk", "size=8m,nr_inodes=20") as disk:
        with pytest.raises(DiskFull, match=line.format("a folder")), atomic_folder(disk / "out", "a folder") as folder:
            for number in range(30):
                (folder / str(number)).touch()
        assert {path.name for path in disk.iterdir()} <= {".out.lock"}
        for number in range(18):
            (disk / str(number)).touch()
        with pytest.raises(DiskFull, match=line.format("a checkpoint")):
            Checkpoints(disk).save(1, state(10))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_all_is_on_the_disk_before_it_has_its_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of system calls stands in for a power failure."""
    asked: list[tuple[str, int]] = []

    def noted(what: str, system: Callable[..., None]) -> Callable[..., None]:
        def call(target: int | Path, *rest: Path) -> None:
            asked.append((what, os.stat(target).st_ino))  # noqa: PTH116
            system(target, *rest)

        return call

    for function, what in (("fsync", "synchronised"), ("rename", "named"), ("replace", "named")):
        monkeypatch.setattr(os, function, noted(what, getattr(os, function)))
    if kind == "file":
        with atomic_file(tmp_path / kind, "a file") as file:
            file.write_text("text")
        files = [tmp_path / kind]
    else:
        with atomic_folder(tmp_path / kind, "a folder") as folder:
            (folder / "below").mkdir()
            for path in (folder / "file", folder / "below" / "file"):
                path.write_text("text")
        files = [tmp_path / kind / path for path in ("file", "below", "below/file")] + [tmp_path / kind]
    assert asked[-1] == ("named", files[-1].stat().st_ino)
    assert asked[-2] == ("synchronised", files[-1].stat().st_ino)
    assert sorted(asked[:-1]) == sorted(("synchronised", path.stat().st_ino) for path in files)


LIMITED = """
import sys, torch
from pathlib import Path
from recolor.training.checkpoints import Checkpoints
from recolor.core.storage import DiskFull
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(1, {"weights": torch.ones(10_000)})
try:
    checkpoints.save(2, {"weights": torch.ones(90_000)})
except DiskFull as error:
    print(error)
assert checkpoints.load(warn=exit)["weights"].numel() == 10_000
"""


def test_a_file_larger_than_the_system_allows_is_a_line_too(tmp_path: Path) -> None:
    """Any user may set this limit: unlike a small disk, it needs no rights."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "run"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ulimit -f" in done.stdout
    assert done.stdout.count("\n") == 1
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"000000001.pt"}


def test_a_failure_leaves_the_file_and_the_folder_that_were_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path / "file", "a file") as path:
        path.write_text("half")
        1 / 0  # noqa: B018
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "folder", "a folder") as folder:
        (folder / "half").touch()
        1 / 0  # noqa: B018
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]
    assert {path.name for path in tmp_path.iterdir()} <= {"file", "folder", ".folder.lock"}


def test_what_is_linked_elsewhere_stays_as_it_is(tmp_path: Path) -> None:
    """DVC links outputs into its cache: written through the link, the cache would be spoilt."""
    (tmp_path / "cached").write_text("old")
    (tmp_path / "folder").mkdir()
    for name in ("file", "folder/file"):
        os.link(tmp_path / "cached", tmp_path / name)
    with atomic_file(tmp_path / "file", "a file") as path:
        path.write_text("new")
    with atomic_folder(tmp_path / "folder", "a folder") as folder:
        (folder / "file").write_text("new")
    assert (tmp_path / "cached").read_text() == "old"
    assert [(tmp_path / name).read_text() for name in ("file", "folder/file")] == ["new", "new"]


def test_a_folder_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    with (
        FileLock(tmp_path / ".out.lock"),
        pytest.raises(UserError, match=str(tmp_path / "out")),
        atomic_folder(tmp_path / "out", "a folder"),
    ):
        pass


@pytest.mark.parametrize("names", [set(), {"another command's"}])
def test_a_failure_removes_the_new_folder_unless_another_command_has_written_into_it(
    tmp_path: Path, names: set[str]
) -> None:
    with pytest.raises(ZeroDivisionError), user_output(tmp_path / "out"):
        (tmp_path / "out").mkdir()
        for name in names:
            (tmp_path / "out" / name).touch()
        1 / 0  # noqa: B018
    assert {path.name for path in tmp_path.rglob("*")} == (names and {"out", *names})


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_follow_the_umask(umask: int, mode: int, tmp_path: Path) -> None:
    weights = {"weights": torch.ones(3)}
    before = os.umask(umask)
    try:
        with atomic_file(tmp_path / "file.safetensors", "a file") as path:
            save_file(weights, path)
        with atomic_folder(tmp_path / "folder", "a folder") as folder:
            (folder / "below").mkdir()
            save_file(weights, folder / "below" / "file.safetensors")
    finally:
        os.umask(before)
    files = (tmp_path / "file.safetensors", tmp_path / "folder" / "below" / "file.safetensors")
    assert [file.stat().st_mode & 0o777 for file in files] == [mode, mode]
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~umask
