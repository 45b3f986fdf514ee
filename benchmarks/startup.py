"""How long a user waits for a command that does next to nothing."""

import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import Row, Sizes, in_turn

ROOT = Path(__file__).parent.parent


def rows(sizes: Sizes) -> list[Row]:
    """`--help` of the command and of the slowest stage; `dvc repro` where nothing has changed, in a repository with results."""
    if not sizes.children:
        return []
    stages = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if "__main__" in path.read_text())
    seconds = in_turn(
        {
            "recolor --help": lambda: _run("-m", "recolor.app.cli", "--help"),
            **{stage: lambda stage=stage: _run("-m", f"stages.{stage}", "--help") for stage in stages},
        },
        sizes.repeats,
    )
    slowest = max(stages, key=lambda stage: seconds[stage])
    found = [
        Row("start-up", "recolor --help", seconds["recolor --help"], "s"),
        Row("start-up", f"--help of the slowest stage, {slowest}", seconds[slowest], "s"),
    ]
    nothing_to_do = None
    if (done := _repro()).returncode == 0 and "Running stage" not in done.stdout:
        nothing_to_do = in_turn({"dvc": _repro}, sizes.repeats)["dvc"]
    what = "dvc repro, nothing to do" + ("" if nothing_to_do else " (there is something: not measured)")
    return [*found, Row("start-up", what, nothing_to_do, "s")]


def _repro() -> subprocess.CompletedProcess[str]:
    """Dry: it looks at everything, as a run without changes does, and changes nothing."""
    return subprocess.run([sys.executable, "-m", "dvc", "repro", "--dry"], cwd=ROOT, capture_output=True, text=True)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, check=True)
