"""How long a user waits for a command that does next to nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import Sizes, in_turn
from benchmarks.table import Row

ROOT = Path(__file__).parent.parent


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """`--help` of the command and of the slowest stage; `dvc repro` where nothing has changed, in a repository with results."""
    if not sizes.children:
        return
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if "__main__" in path.read_text())
    commands: dict[str, Callable[[], None]] = {"recolor": lambda: _run("-m", "recolor", "--help")}
    commands |= {stage: lambda stage=stage: _run("-m", f"stages.{stage}", "--help") for stage in stages}
    timings = in_turn(commands, sizes.repeats, seconds / 2)
    note = timings.note(sizes.repeats)
    slowest = max(stages, key=lambda stage: timings.medians[stage])
    yield Row("start-up", "recolor --help", timings.medians["recolor"], "s", note=note)
    yield Row("start-up", f"--help of the slowest stage, {slowest}", timings.medians[slowest], "s", note=note)
    what = "dvc repro, nothing to do"
    if (done := _repro()).returncode or "Running stage" in done.stdout:
        yield Row("start-up", what, None, "s", note="there is something to do here")
        return
    timings = in_turn({"dvc": _repro}, sizes.repeats, seconds / 2)
    yield Row("start-up", what, timings.medians["dvc"], "s", note=timings.note(sizes.repeats))


def _repro() -> subprocess.CompletedProcess[str]:
    """Dry: it checks everything, as a run without changes does, and changes nothing."""
    return subprocess.run([sys.executable, "-m", "dvc", "repro", "--dry"], cwd=ROOT, capture_output=True, text=True)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
