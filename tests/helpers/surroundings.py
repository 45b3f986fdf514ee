"""What tests need around them: the repository's folder, photos, random inputs, an ordinary user, a small disk.

A module of its own: with several conftest.py, `import conftest` depends on which one was loaded last.
"""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import battery
import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[2]

# Random inputs: the same few in every run, and as a sweep many new ones.
few_or_many = pytest.mark.parametrize("examples", [300, pytest.param(10_000, marks=pytest.mark.sweep)])


def search(examples: int) -> Callable:
    """Settings of hypothesis for a test within a test that `few_or_many` calls."""
    return settings(
        max_examples=examples, deadline=None, derandomize=examples < 1000, suppress_health_check=list(HealthCheck)
    )


def photos_in(folder: Path, names: list[str]) -> Path:
    """Small photos, all different, under these names."""
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(battery.encoded(battery.picture(seed, (9, 9))))
    return folder


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Runs the block without the rights of root, if the tests have them."""
    if not battery.ROOT:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@contextlib.contextmanager
def mounted(disk: Path, options: str) -> Iterator[Path]:
    """A separate disk at `disk`. Needs root, or `sudo` on a CI machine; elsewhere the test is skipped."""
    disk.mkdir()
    sudo = ["sudo", "-n"] if os.environ.get("CI") and os.geteuid() and shutil.which("sudo") else []
    mount = [*sudo, "mount", "-t", "tmpfs", "-o", f"{options},uid={os.geteuid()}", "none", disk]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    try:
        yield disk
    finally:
        subprocess.run([*sudo, "umount", disk], check=True)
