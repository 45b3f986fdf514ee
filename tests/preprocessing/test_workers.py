"""The parallel map: order, bounded memory, and workers that die."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from itertools import count
from pathlib import Path

import psutil
import pytest

from recolor.core.errors import UserError
from recolor.preprocessing import workers
from recolor.preprocessing.workers import WINDOW, ordered_map

LARGE = 2**23  # much more than a pipe's buffer: sending takes a while


def lost(task: int, limit: float | None) -> str:
    return f"lost {task}" if limit is None else f"{task} took more than {limit} s"


def torn(task: int, folder: Path) -> bytes:
    """The first process that does task 5 is killed, most likely while it sends the result."""
    if task == 5 and not any(folder.iterdir()):
        (folder / "killed").touch()
        threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return task.to_bytes(2, "little") * LARGE


def uneven(task: int) -> int:
    time.sleep(0.02 * (task % 3))
    return task


def deadly(task: int, folder: Path, times: int) -> str:
    """Task 5 kills its process, the first `times` times."""
    deaths = len(list(folder.iterdir()))
    if task == 5 and deaths < times:
        (folder / str(deaths)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"did {task}"


def suicidal(task: int) -> str:
    os._exit(1)


def lethal_now_and_then(task: int) -> int:
    return task if task % 40 else os._exit(1)


def endless(task: int) -> str:
    """Tasks 5 and 7 never end: one waits, one loops in C, where no Python signal handler runs."""
    if task == 5:
        threading.Event().wait()
    if task == 7:
        sum(count())
    return f"did {task}"


def faulty(task: int) -> str:
    return f"{1 / (task - 3)}"


def test_results_come_in_the_order_of_the_tasks() -> None:
    assert list(ordered_map(uneven, range(20), 3, lost)) == list(range(20))


@pytest.mark.parametrize(("deaths", "fifth"), [(1, "did 5"), (2, "lost 5")])
def test_a_task_has_two_chances(deaths: int, fifth: str, tmp_path: Path) -> None:
    results = list(ordered_map(partial(deadly, folder=tmp_path, times=deaths), range(12), 2, lost))
    assert results == [fifth if task == 5 else f"did {task}" for task in range(12)]


def test_workers_killed_while_they_send_are_replaced(tmp_path: Path) -> None:
    results = list(ordered_map(partial(torn, folder=tmp_path), range(8), 2, lost))
    assert results == [task.to_bytes(2, "little") * LARGE for task in range(8)]


def test_workers_that_keep_dying_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MOST_DEATHS", 3)
    with pytest.raises(UserError):
        list(ordered_map(suicidal, range(100), 2, lost))


def test_any_number_of_lethal_tasks_is_lost_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """So far apart that a task between two of them always ends before the next one starts."""
    monkeypatch.setattr(workers, "MOST_DEATHS", 3)
    results = list(ordered_map(lethal_now_and_then, range(90), 2, lost))
    assert results == [task if task % 40 else f"lost {task}" for task in range(90)]


def test_a_task_without_end_is_given_up() -> None:
    results = list(ordered_map(endless, range(12), 2, lost, limit=0.3))
    assert results == [f"{task} took more than 0.3 s" if task in (5, 7) else f"did {task}" for task in range(12)]


def test_an_exception_names_the_task() -> None:
    with pytest.raises(RuntimeError, match=r"^3: (.|\n)*ZeroDivisionError"):
        list(ordered_map(faulty, range(10), 2, lost))


def test_tasks_are_read_no_further_than_the_window() -> None:
    read: list[int] = []
    results = ordered_map(uneven, (read.append(task) or task for task in count()), 2, lost)
    for _ in range(10):
        next(results)
    assert len(read) <= 10 + 2 * WINDOW
    results.close()
    assert not multiprocessing.active_children()


def test_workers_exit_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import time\n"
        "from recolor.preprocessing.workers import ordered_map\n"
        "if __name__ == '__main__':\n"
        "    results = ordered_map(abs, range(9), 2, max)\n"
        "    print(next(results), flush=True)\n"
        "    time.sleep(60)\n"
    )
    master = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert master.stdout.readline() == "0\n"
    children = psutil.Process(master.pid).children(recursive=True)
    assert len(children) >= 2
    master.kill()
    master.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_workers_import_neither_torch_nor_pandas() -> None:
    code = "import sys, recolor.preprocessing.conversion, recolor.preprocessing.workers; "
    code += "print({'torch', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
