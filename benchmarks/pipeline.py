"""The rest of the pipeline: batches, the whole training loop with its photos, preprocess and evaluate."""

import contextlib
import runpy
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from torch import Tensor
from torchmetrics.image import fid

from benchmarks import ours, textbook
from benchmarks.measuring import Budget, Sizes, Worker, in_turn, synchronise
from benchmarks.table import Row, cores
from recolor.core.params import Params
from recolor.core.storage import file_sha256
from recolor.dataset.batches import BatchLoader
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation import features, inception
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.models.folder import save_generator
from recolor.models.unet import UNetGenerator
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.context import RuntimeParams

WORKERS = 2  # of the textbook's DataLoader


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    budget = Budget(seconds, 5)  # two for evaluate
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listing = ours.make_photos(folder / "photos", sizes.photos, sizes.photo_size)
        yield from _preprocess(sizes, folder, listing, budget.share())
        yield from _batches(sizes, folder, CachedPhotos(folder / "cache", "train"), budget.share())
        yield from _loop(sizes, folder, budget.share())
        build(listing[: sizes.scored], folder / "photos", folder / "scored", _cache(sizes))
        yield from _evaluate(sizes, folder, budget.left())


def _cache(sizes: Sizes) -> CacheParams:
    return CacheParams(seed=1, size=sizes.size, train_fraction=0.5, min_chroma=0)


def _preprocess(sizes: Sizes, folder: Path, listing: pd.DataFrame, seconds: float) -> Iterator[Row]:
    """The textbook has no such stage: it does the same work whenever it opens a photo."""
    part, photos = "preprocess", textbook.PhotoFolder(folder / "photos", sizes.size)
    some, quarter = range(min(64, sizes.photos)), listing[: sizes.photos // 4]

    def own(photos: pd.DataFrame, processes: int) -> Callable[[], Any]:
        return lambda: build(photos, folder / "photos", folder / "cache", _cache(sizes), processes)

    sides: dict[str, tuple[int, Callable[[], Any]]] = {
        "textbook, opening photos": (len(some), lambda: [photos[index] for index in some]),
        "recolor, one process": (len(listing), own(listing, 1)),
    }
    if sizes.children:
        processes = max(2, cores())  # for a part of the photos too, for which `build` would use fewer
        sides["recolor, a process for each core, a quarter of the photos"] = (len(quarter), own(quarter, processes))
        sides["recolor, a process for each core"] = (len(listing), own(listing, processes))
    timings = in_turn({name: work for name, (_, work) in sides.items()}, max(1, sizes.repeats // 2), seconds)
    speeds = {name: count / timings.medians[name] for name, (count, _) in sides.items()}
    first, note = next(iter(speeds.values())), timings.note(sizes.repeats // 2)
    for name, speed in speeds.items():
        yield Row(part, name, speed, "photos/s", speed / first, note=note)
    if sizes.children:
        *_, part_of_it, whole = timings.medians.values()
        slope = (whole - part_of_it) / (len(listing) - len(quarter))
        yield Row(part, "recolor, a process for each core, a photo", 1000 * slope, "ms")
        yield Row(part, "recolor, a process for each core, to start", whole - slope * len(listing), "s")


def _own_batches(sizes: Sizes, photos: CachedPhotos) -> Generator[Tensor]:
    """Endless."""
    source = BatchLoader(photos, sizes.batch, True, 1, ours.device(), "auto")
    epoch = 0
    while True:
        yield from source.epoch(epoch)
        epoch += 1


def _batches(sizes: Sizes, folder: Path, photos: CachedPhotos, seconds: float) -> Iterator[Row]:
    """Batches alone, without a step to hide behind; eight of them each time.

    One side after the other: in turn, the textbook's workers would read ahead while ours are timed.
    """
    sides = {
        f"textbook, {WORKERS} workers": textbook.batches(folder / "photos", sizes.size, sizes.batch, WORKERS),
        "recolor": _own_batches(sizes, photos),
    }
    first = None
    for name, batches in sides.items():
        eight = {name: lambda batches=batches: [next(batches) for _ in range(8)]}
        timings = in_turn(eight, sizes.repeats, seconds / 2)
        batches.close()  # ends the workers
        speed = 8 * sizes.batch / timings.medians[name]
        first = first or speed
        yield Row("batches of photos", name, speed, "photos/s", speed / first, note=timings.note(sizes.repeats))


def _loop(sizes: Sizes, folder: Path, seconds: float) -> Iterator[Row]:
    """Step and photos together: what a user waits for."""
    part, names = "training, GAN", {"textbook": "textbook, fp32", "recolor": f"recolor, {ours.precision()}"}
    with Worker(sizes) as usually, Worker(sizes, ours.as_in_training) as ourselves:
        usual, own = usually.make(_usual_loop, folder), ourselves.make(_own_loop, folder)
        timings = in_turn({"textbook": usual["step"], "recolor": own["step"]}, sizes.repeats, seconds)
        waiting = own["waiting"]()
    for side, name in names.items():
        speed, gain = (value / timings.medians[side] for value in (sizes.batch, timings.medians["textbook"]))
        yield Row(part, name, speed, "photos/s", gain, note=timings.note(sizes.repeats))
    yield Row(part, "recolor, waiting for photos", 100 * waiting, "% of the time")


def _usual_loop(sizes: Sizes, folder: Path) -> dict[str, Callable[[], Any]]:
    networks = textbook.unet(sizes.filters, sizes.downs), textbook.patchgan(sizes.filters, 3)
    trainer = textbook.Trainer(*networks, ours.device())
    batches = textbook.batches(folder / "photos", sizes.size, sizes.batch, WORKERS)
    return {"step": lambda: trainer.step(*next(batches))}


def _own_loop(sizes: Sizes, folder: Path) -> dict[str, Callable[[], Any]]:
    trainer, batches = ours.Trainer(sizes, "gan"), _own_batches(sizes, CachedPhotos(folder / "cache", "train"))
    waits, whole = [], []

    def step() -> None:
        start = time.perf_counter()
        real = next(batches)
        waits.append(time.perf_counter() - start)
        trainer.step(real)
        synchronise()
        whole.append(time.perf_counter() - start)

    return {"step": step, "waiting": lambda: sum(waits[1:]) / sum(whole[1:])}


def _evaluate(sizes: Sizes, folder: Path, seconds: float) -> Iterator[Row]:
    """Two models on all photos, Inception included, with random weights in all networks, which take as long as any."""
    generator = UNetGenerator(ours.networks(sizes)[0])
    models = {name: folder / name for name in ("gan", "wgan")}
    for model in models.values():
        save_generator(model, generator, {})
    settings = Params(ours.PARAMS).section("evaluate", EvaluateParams)
    with _random_inception(folder) if sizes.inception else contextlib.nullcontext() as weights:
        wanted = "required" if sizes.inception else "off"
        settings = settings.model_copy(update={"inception": wanted, "inception_weights": weights})
        file = weights / inception.TORCH_FIDELITY if weights else None
        inside: list[float] = []  # the networks
        resizing: list[float] = []  # to 299x299, which is inside Inception's calls

        def own() -> None:
            inside.clear()
            resizing.clear()
            with (
                _timed(UNetGenerator, "forward", inside),
                _timed(inception.Inception, "__call__", inside),
                _timed(features.Lite0, "__call__", inside),
                _timed(inception, "resize", resizing),
                _timed(fid, "interpolate_bilinear_2d_like_tensorflow1x", resizing),
            ):
                evaluate(folder / "scored", models, folder / "metrics", settings, RuntimeParams(), 1)

        def usual() -> None:
            textbook.evaluate(folder / "photos", sizes.size, sizes.scored, [generator.eval()] * 2, file)

        timings = in_turn({"textbook": usual, "recolor": own}, 1, seconds)
    what = "FID, KID and IS" if sizes.inception else "no Inception"
    speeds = {side: sizes.scored / taken for side, taken in timings.medians.items()}
    names = {
        "textbook": "textbook, 2 models, a photo at a time, FID's passes alone",
        "recolor": f"recolor, 2 models, {what}",
    }
    for side, name in names.items():
        yield Row("evaluate", name, speeds[side], "photos/s", speeds[side] / speeds["textbook"])
    outside = 1 - (sum(inside) - sum(resizing)) / timings.medians["recolor"]
    yield Row("evaluate", "recolor, outside the networks", 100 * outside, "% of the time")


@contextlib.contextmanager
def _timed(kind: Any, method: str, seconds: list[float]) -> Iterator[None]:
    original = getattr(kind, method)

    def timed(*arguments: Any) -> Any:
        synchronise()
        start = time.perf_counter()
        result = original(*arguments)
        synchronise()
        seconds.append(time.perf_counter() - start)
        return result

    with mock.patch.object(kind, method, timed):
        yield


@contextlib.contextmanager
def _random_inception(folder: Path) -> Iterator[Path]:
    """Random weights from the tests, accepted as the published ones within the block."""
    script = Path(__file__).parent.parent / "tests" / "helpers" / "random_inception.py"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript, clean-fid's format
        runpy.run_path(str(script), run_name="random_inception")["write"](folder)
    digests = {name: file_sha256(folder / name) for name in inception.SHA256}
    with mock.patch.dict(inception.SHA256, digests):
        yield folder
