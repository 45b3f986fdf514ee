"""Does a job in copies of a folder, killed at every STRIDE-th point in turn.

The points are the moments before each operation that changes a file, as the interpreter's audit events report them, for
SIGKILL; and the middle of every file that the job writes, for SIGXFSZ, by which the system kills a process that writes beyond
a limit. After each the output has to be the old one, the new one or none (file by file, or as a whole folder), and the job,
done again undisturbed, has to end with what it makes without a kill. The runs are forks of one process, which has done all
but the writing.
"""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.utime"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Files = dict[str, bytes]


@dataclass
class Job:
    """`new(out)` is killed while it replaces the output of `old(out)`."""

    new: Callable[[Path], object]
    old: Callable[[Path], object]
    folder_at_once: bool  # or file by file


def preprocess(folder: Path) -> Job:
    from clone import write_photos

    from recolor.images.folders import walk
    from recolor.preprocessing.build import CacheParams, build
    from recolor.sources.listing import listing_of

    folder.mkdir()
    photos = write_photos(folder)
    listing = listing_of(photos, walk(photos))
    one, two = (CacheParams(seed=seed, size=32, train_fraction=0.7, min_chroma=2) for seed in (1, 2))
    new, old = (lambda out, params=params: build(listing, photos, out, params, processes=1) for params in (one, two))
    return Job(new, old, folder_at_once=True)


def unpack(folder: Path) -> Job:
    import zipfile

    import numpy as np

    from recolor.sources.archives import extract, members

    folder.mkdir()
    archive, random = folder / "photos.zip", np.random.default_rng(0)
    with zipfile.ZipFile(archive, "w") as file:
        for number in range(4):
            file.writestr(f"class/{number}.jpg", random.bytes(400_000))
    return Job(lambda out: extract(archive, list(members(archive)), out), Path.mkdir, folder_at_once=False)


def evaluate(folder: Path) -> Job:
    import torch
    from clone import write_photos

    from recolor.evaluation import evaluate as evaluation
    from recolor.images.folders import walk
    from recolor.models.folder import save_generator
    from recolor.models.unet import UNetGenerator, UNetParams
    from recolor.preprocessing.build import CacheParams, build
    from recolor.runtime.context import RuntimeParams
    from recolor.sources.listing import listing_of

    (folder / "photos").mkdir(parents=True)
    photos = write_photos(folder / "photos")
    cache = CacheParams(seed=42, size=32, train_fraction=0.7, min_chroma=2)
    build(listing_of(photos, walk(photos)), photos, folder / "cache", cache, processes=1)
    torch.manual_seed(1)
    save_generator(folder / "gan", UNetGenerator(UNetParams(kind="unet", filters=2, downs=4, dropout=0.5)), {})
    params = evaluation.EvaluateParams(batch_size=8, inception="off", inception_weights=None, bootstrap=100, examples=2)
    models = {"gan": folder / "gan"}
    for seed in (1, 2):  # measured here, once, and written as evaluation does in the forks
        evaluation.evaluate(folder / "cache", models, folder / str(seed), params, RuntimeParams(device="cpu"), seed)

    def write(out: Path, seed: int) -> None:
        with evaluation.atomic_folder(out, "the scores") as new:
            for path in (folder / str(seed)).iterdir():
                (new / path.name).write_bytes(path.read_bytes())

    return Job(lambda out: write(out, 1), lambda out: write(out, 2), folder_at_once=True)


def report(folder: Path) -> Job:
    from made_up_results import write_results

    from recolor.reporting import report

    sample = write_results(folder, "sample", inception=False, source={"source": "sample", "crops": 4})
    mine = write_results(folder, "mine", inception=True, source={"source": "folder", "path": "photos", "limit": None})
    drawn = {dataset.dataset: report.figures(dataset) for dataset in (sample, mine)}
    other = {name: picture.rotate(180) for name, picture in drawn["sample"].items()}

    def write(out: Path, old: bool) -> None:
        out.mkdir(exist_ok=True)
        figures = drawn | {"sample": other} if old else drawn
        report.figures = lambda result: figures[result.dataset]  # drawn here, once, and written in the forks
        report.write([sample, mine] if old else [sample], "gan" if old else "wgan", out)

    return Job(lambda out: write(out, False), lambda out: write(out, True), folder_at_once=False)


def kill_job(name: str, folder: Path, stride: int) -> None:
    """Prints how many points there were."""
    # The system survives these kills, and hundreds of waits for the disk take a minute.
    os.fsync = lambda descriptor: None
    job: Job = {"preprocess": preprocess, "unpack": unpack, "evaluate": evaluate, "report": report}[name](
        folder / "made"
    )

    def run(work: Path, kill: Callable[[], None] = lambda: None) -> tuple[int, int]:
        def watched() -> None:
            watch(work)
            kill()
            job.new(work / "out")

        return fork(watched)

    (folder / "old").mkdir()
    job.old(folder / "old" / "out")
    old = files(folder / "old" / "out")
    undisturbed = Path(shutil.copytree(folder / "old", folder / "new"))
    status, points = run(undisturbed)
    assert status == 0
    new = files(undisturbed / "out")
    assert new != old
    sizes = sorted({len(content) // 2 for content in new.values()})
    kills = [lambda point=point: die_at(point) for point in range(1, points + 1)]
    kills += [lambda size=size: limit(size) for size in sizes]
    for number in range(0, len(kills), stride):
        work = Path(shutil.copytree(folder / "old", folder / str(number)))
        status, _ = run(work, kills[number])
        expected = signal.SIGKILL if number < points else signal.SIGXFSZ
        assert os.waitstatus_to_exitcode(status) == -expected, (number, status)
        left = files(work / "out")
        if job.folder_at_once:
            assert left in (old, new, {}), number
        else:
            for path, content in left.items():
                assert content in (old.get(path), new.get(path)), (number, path)
        assert run(work)[0] == 0, number
        assert files(work / "out") == new, number
    print(len(kills))


def files(out: Path) -> Files:
    """The files under final names: those of temporary files and folders begin with a dot."""
    paths = {path.relative_to(out): path for path in out.rglob("*") if path.is_file()}
    return {
        str(name): path.read_bytes() for name, path in paths.items() if not any(p.startswith(".") for p in name.parts)
    }


passed = 0
kill_point = 0


def watch(place: Path) -> None:
    """Makes a point of each operation that changes a file, and of each opening of a file in `place` to write."""

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = isinstance(flags, int) and flags & WRITES and str(path).startswith(str(place))
        else:
            changes = event in CHANGES
        if changes and reached_kill_point():
            die()

    sys.addaudithook(audit)


def reached_kill_point() -> bool:
    """Passes a point; returns whether it is the one of `die_at`."""
    global passed
    passed += 1
    return passed == kill_point


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(point: int) -> None:
    global kill_point
    kill_point = point


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def fork(work: Callable[[], object]) -> tuple[int, int]:
    """Does `work` in a fork; returns its wait status and the number of points that it passed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os.write(writer, str(passed).encode())
            if code:
                sys.excepthook(*sys.exc_info())
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return status, int(file.read() or 0)
