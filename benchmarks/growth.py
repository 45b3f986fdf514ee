"""What a dataset ten and a hundred times as large takes: listing, preprocess and an epoch's reading, and their memory."""

import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import NO_TIME, Budget, Sizes
from benchmarks.table import Row


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """Small photos in small tensors: the cost of a photo beside its pixels. A process for each size, while time is left."""
    budget = Budget(seconds, len(sizes.grown))
    for count in sizes.grown:
        if budget.left() <= 0:
            yield Row(f"{count:,} photos", "", None, "", note=NO_TIME)
            continue
        command = [sys.executable, "-m", "benchmarks.growth", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for what, (value, unit) in json.loads(done.stdout).items():
            yield Row(f"{count:,} photos", what, value, unit)


def _measure(count: int) -> dict[str, tuple[float | None, str]]:
    import numpy as np

    from benchmarks import ours
    from recolor.dataset.shards import CachedPhotos
    from recolor.preprocessing.build import CacheParams, build
    from recolor.sources.fetch import FolderParams, fetch

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours.make_photos(folder / "photos", count, (40, 30))
        clock, held = [time.perf_counter()], []

        def done() -> None:
            clock.append(time.perf_counter())
            held.append(_anonymous())

        source = FolderParams(source="folder", path=str(folder / "photos"), limit=None)
        listing = fetch(source, 1, folder)
        done()
        params = CacheParams(seed=1, size=16, train_fraction=0.85, min_chroma=0)
        build(listing, folder / "photos", folder / "cache", params)
        done()
        photos = CachedPhotos(folder / "cache", "train")
        for batch in np.array_split(np.random.default_rng(1).permutation(len(photos)), -(-len(photos) // 16)):
            photos[batch]
        done()
    took = [1000 * (after - before) / count for before, after in itertools.pairwise(clock)]
    stages = ("listing", "preprocess", "an epoch's reading")
    times = {stage: (each, "ms a photo") for stage, each in zip(stages, took, strict=True)}
    return times | {
        f"memory after {stage}, without files": (each, "MB") for stage, each in zip(stages, held, strict=True)
    }


def _anonymous() -> float | None:
    """MB of memory that this process holds now and that no file backs; None elsewhere than on Linux."""
    status = Path("/proc/self/status")
    found = re.search(r"RssAnon:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1000 * 1.024 if found else None


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
