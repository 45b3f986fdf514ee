"""Memory: how much a photo takes, and what happens without it."""

import os
import subprocess
import sys
from pathlib import Path

from coloured import save
from PIL import Image


def alone(model: Path, code: str) -> list[str]:
    """The lines that a process of its own prints, with one thread: the stacks of more would count as memory too."""
    start = f"""
import resource
from pathlib import Path
from recolor.inference import files
from recolor.inference import colorizer as inference
from recolor.inference.files import colorize_files
from recolor.inference.plan import plan
colorizer = inference.Colorizer.load({str(model)!r}, "cpu")
def colour(*photos, out=None, **settings):
    jobs = list(colorize_files(colorizer, plan([Path(photo) for photo in photos], out), inference.Options(**settings)))
    return [(job.source.name, job.problem) for job in jobs if job.problem]
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_too_little_memory_costs_the_photo_that_needs_more(tiny_model: Path, tmp_path: Path) -> None:
    """First there is too little for a batch, which is done photo by photo; then for one photo, painted in one piece."""
    for number in range(16):
        save(tmp_path / f"in/{number}.png", number)
    Image.linear_gradient("L").resize((2000, 2000)).save(tmp_path / "in/large.png")
    batch, large = alone(
        tiny_model,
        f"""
folder = Path({str(tmp_path)!r})
colour(folder / "in/0.png", out=folder / "first.png", size=1024)
inference.STRIP = 2**22
files.BATCH_PIXELS = 2**23
def leave(megabytes):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 10**6, resource.RLIM_INFINITY))
leave(150)  # 16 photos of 1024 x 1024 take 200 for what goes in and comes out alone
print(colour(*(folder / f"in/{{number}}.png" for number in range(16)), out=folder / "batch", size=1024))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
leave(60)  # 4 megapixels painted at once take 300
print(colour(folder / "in", out=folder / "out"))
""",
    )
    assert batch == "[]"
    assert large == "[('large.png', 'needs more memory than is available')]"
    assert len(list((tmp_path / "batch").iterdir())) == len(list((tmp_path / "out").iterdir())) == 16


def test_memory_does_not_grow_with_more_than_the_photo_itself(tiny_model: Path, tmp_path: Path) -> None:
    """Strips: a matrix of weights for all of the longer side would take 38 MB. 2 megapixels: two copies at 4 bytes a pixel,
    and tiles; in one piece, each of its Lab pictures would take 27 MB."""
    save(tmp_path / "small.png")
    sizes = {"wide.png": (300_000, 2), "tall.png": (2, 300_000), "photo.jpg": (1500, 1500)}
    for name, size in sizes.items():
        Image.linear_gradient("L").resize(size).save(tmp_path / name)
    lines = alone(
        tiny_model,
        f"""
inference.STRIP = 2**16
start = 0
for name in ["small.png", *{list(sizes)}]:
    assert not colour(Path({str(tmp_path)!r}) / name)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    start = start or peak
    print(peak - start)
""",
    )
    small, wide, tall, photo = map(float, lines)  # MB more than for the small one
    assert (small, wide < 25, tall < 25, photo < 80) == (0, True, True, True), lines
