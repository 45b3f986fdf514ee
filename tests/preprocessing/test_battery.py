"""Preprocessing the battery of odd photos: each is used or rejected with its reason, and nothing hangs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import battery
import pytest

from recolor.dataset import shards
from recolor.images.folders import walk
from recolor.preprocessing.build import CacheParams, build
from recolor.sources.listing import listing_of

PARAMS = CacheParams(seed=42, size=32, train_fraction=0.7, min_chroma=2.0)


def test_every_file_is_used_or_rejected_with_its_reason(tmp_path: Path) -> None:
    preprocess_battery(tmp_path)


@pytest.mark.skipif(not battery.ROOT, reason="covered by the test above")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_the_same_without_root(tmp_path: Path) -> None:
    powers = "-dac_override,-dac_read_search"
    without = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
    code = "import sys, pathlib, battery, test_battery; assert not battery.ROOT; "
    code += "test_battery.preprocess_battery(pathlib.Path(sys.argv[1]))"
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tests / "helpers", tests / "preprocessing", tests, tests.parent)))
    environment = {**os.environ, "PYTHONPATH": path}
    subprocess.run([*without, sys.executable, "-c", code, tmp_path], env=environment, check=True)
    reasons = shards.read_table(tmp_path / "out" / "rejected.csv").set_index("path")["reason"]
    assert [reasons[name] for name in ("forbidden.jpg", "locked")] == ["no permission to read it"] * 2


def preprocess_battery(tmp_path: Path) -> None:
    folder = tmp_path / "battery"
    folder.mkdir()
    cases = battery.write(folder)
    (folder / "notes.txt").write_text("beside the photos")
    listing = listing_of(folder, walk(folder))
    battery.vanish(folder, cases)
    counts = build(listing, folder, tmp_path / "out", PARAMS, processes=2)
    battery.unlock(folder)
    manifest, rejected = (shards.read_table(tmp_path / "out" / name) for name in ("manifest.csv", "rejected.csv"))
    assert sorted([*manifest["path"], *rejected["path"]]) == sorted([*cases, "notes.txt"])
    assert counts.used + sum(counts.rejected.values()) == len(cases) + 1
    reasons = dict(zip(rejected["path"], rejected["reason"], strict=True))
    assert reasons["notes.txt"].startswith("not a photo by its name")
    for name, case in cases.items():
        if case.reason:
            assert case.reason in reasons[name], name
        elif case.grey:
            assert reasons[name].startswith("grey: "), name
        elif not case.copy_of:
            copies = [other for other, its in cases.items() if its.copy_of == name]
            one = {name, *copies} - set(reasons)
            assert len(one) == 1, name
            assert all(reasons[path] == f"duplicate of {min({name, *copies})}" for path in {name, *copies} - one)
