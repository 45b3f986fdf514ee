"""What a dataset ten and a hundred times as large takes: listing, preprocess and an epoch's reading, and their memory."""

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measuring import Row, Sizes, peak_memory


def rows(sizes: Sizes) -> list[Row]:
    """Small photos in small tensors: what is measured is what each photo takes beside its pixels. One process for each."""
    found = []
    for count in sizes.grown:
        command = [sys.executable, "-m", "benchmarks.growth", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        for what, (value, unit) in json.loads(done.stdout).items():
            found.append(Row(f"{count:,} photos", what, value, unit))
    return found


def _measure(count: int) -> dict[str, tuple[float, str]]:
    import numpy as np

    from benchmarks import ours
    from recolor.cache import CacheParams, build
    from recolor.shards import CachedPhotos
    from recolor.sources import FolderParams, fetch

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        ours.make_photos(folder / "photos", count, (40, 30))
        clock = [time.perf_counter()]
        source = FolderParams(source="folder", path=str(folder / "photos"), limit=None)
        listing = fetch(source, 1, folder)
        clock.append(time.perf_counter())
        params = CacheParams(size=16, train_fraction=0.85, min_chroma=0)
        build(listing, folder / "photos", folder / "cache", params, 1)
        clock.append(time.perf_counter())
        photos = CachedPhotos(folder / "cache", "train")
        for batch in np.array_split(np.random.default_rng(1).permutation(len(photos)), -(-len(photos) // 16)):
            photos[batch]
        clock.append(time.perf_counter())
    took = [1000 * (after - before) / count for before, after in itertools.pairwise(clock)]
    return {
        "listing": (took[0], "ms a photo"),
        "preprocess": (took[1], "ms a photo"),
        "an epoch's reading": (took[2], "ms a photo"),
        "peak memory": (peak_memory() / 1e6, "MB"),
    }


if __name__ == "__main__":
    print(json.dumps(_measure(int(sys.argv[1]))))
