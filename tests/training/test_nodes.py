"""Two nodes that share a folder, as two torchrun commands on one machine: killed or stopped they continue to the same bytes."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from clone import set_params
from surroundings import free_port
from working_folder import ENVIRONMENT, checkpoints, outputs

from recolor.training.state import RESUMED

pytestmark = pytest.mark.sweep

EPOCHS = 10
Nodes = list[subprocess.Popen[str]]


@contextmanager
def nodes(*folders: Path) -> Iterator[Nodes]:
    """A training of the GAN on a node for each folder."""
    launch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={len(folders)}", "--nproc-per-node=1"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
    command = [*launch, *meeting, "-m", "stages.train", "mine", "gan"]
    started: Nodes = []
    try:
        for folder in folders:
            with (folder / f"node{len(started)}.log").open("a") as log:
                started.append(
                    subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=log, stderr=log, text=True)
                )
        yield started
    finally:
        for node in started:
            kill(node)


def kill(node: subprocess.Popen[str]) -> None:
    """All processes of the node at once, as when its power fails."""
    if node.poll() is None:
        launcher = psutil.Process(node.pid)
        for process in [launcher, *launcher.children(recursive=True)]:
            process.kill()


def ends(started: Nodes) -> list[int]:
    return [node.wait(timeout=300) for node in started]


def printed(folder: Path) -> str:
    return "".join(log.read_text() for log in sorted(folder.glob("node*.log")))


def prepare(made: Path, folder: Path) -> Path:
    set_params(Path(shutil.copytree(made, folder)), {"paper.train.epochs": EPOCHS, "paper.train.batch_size": 4})
    return folder


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The model of a run that nothing disturbs."""
    folder = prepare(made, tmp_path_factory.mktemp("whole") / "work")
    with nodes(folder, folder) as started:
        assert ends(started) == [0, 0], printed(folder)
    return outputs(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_node_ends_both_and_they_continue_to_the_very_same_bytes(
    rank: int, number: signal.Signals, whole: dict[str, bytes], made: Path, tmp_path: Path
) -> None:
    work = prepare(made, tmp_path / "work")
    history = work / "data/live/mine/gan.csv"
    with nodes(work, work) as started:
        while not history.exists():
            assert [node.poll() for node in started] == [None, None], printed(work)
            time.sleep(0.01)
        if number == signal.SIGKILL:
            kill(started[rank])
        else:
            started[rank].send_signal(number)
        assert 0 not in ends(started)
    assert not outputs(work)
    assert len(checkpoints(work)) == 2
    if number == signal.SIGTERM:
        errors = [line for line in printed(work).splitlines() if "error: " in line and "dvc repro" in line]
        assert sorted("SIGTERM" in line for line in errors) == [False, True]
    with nodes(work, work) as started:
        assert ends(started) == [0, 0], printed(work)
    assert RESUMED in printed(work)
    assert outputs(work) == whole
