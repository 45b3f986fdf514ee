"""Rows of the table, and how they are printed."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

HEADER = "| | | | against textbook | of the ceiling | note |\n| --- | --- | ---: | ---: | ---: | --- |"


@dataclass(frozen=True)
class Row:
    """One line of the table. `gain` is against the textbook's row, `share` of the machine's ceiling; no value: not measured."""

    part: str
    what: str
    value: float | None
    unit: str
    gain: float | None = None
    share: float | None = None
    note: str = ""

    def __str__(self) -> str:
        value = "" if self.value is None else f"{self.value:.3g}" if self.value < 1000 else f"{self.value:,.0f}"
        gain = "" if self.gain is None else f"{self.gain:.2f}x"
        share = "" if self.share is None else f"{self.share:.0%}"
        return f"| {self.part} | {self.what} | {value} {self.unit} | {gain} | {share} | {self.note} |"


def as_json(rows: list[Row]) -> str:
    return json.dumps({"machine": machine(), "rows": [asdict(row) for row in rows]}, indent=2)


def machine() -> str:
    """Processor, GPU with its driver, versions and commit, in one line."""
    path = Path("/proc/cpuinfo")
    cpuinfo = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    units = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if capabilities.get(name)]
    gpu = f"{torch.cuda.get_device_name()} ({_driver()})" if torch.cuda.is_available() else "no GPU"
    return (
        f"{names[0] if names else platform.processor()}, {cores()} cores ({', '.join(units)}), {gpu}; Python "
        f"{platform.python_version()}, torch {version('torch')}, {torch.get_num_threads()} threads, commit {_commit()}"
    )


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _driver() -> str:
    return "driver " + _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").partition("\n")[0]


def _commit() -> str:
    changed = "+" if _output("git", "status", "--porcelain", "--untracked-files=no") else ""
    return (_output("git", "rev-parse", "--short", "HEAD") or "unknown") + changed


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
