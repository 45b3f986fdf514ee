"""The rest of the pipeline: the whole training loop with its photos, preprocess and evaluate."""

import contextlib
import os
import runpy
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
from torch import Tensor
from torchmetrics.image import fid

from benchmarks import ours, textbook
from benchmarks.measuring import Row, Sizes, apart, in_turn, synchronise
from recolor.core.params import Params
from recolor.dataset.batches import Feed
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation import inception
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.models.checkpoint import save_generator
from recolor.models.networks import UNetGenerator
from recolor.preprocessing.build import CacheParams, build
from recolor.runtime.devices import Machine, RuntimeParams
from recolor.runtime.distributed import Crew

WORKERS = 2  # of the textbook's DataLoader
ROUNDS = 2  # of evaluations, which take half a minute each


def rows(sizes: Sizes) -> list[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listing = ours.make_photos(folder / "photos", sizes.photos, sizes.photo_size)
        found = _preprocess(sizes, folder, listing)
        photos = CachedPhotos(folder / "cache", "train")
        found += _data(sizes, folder, photos) + _loop(sizes, folder)
        build(listing[: sizes.scored], folder / "photos", folder / "scored", _cache(sizes), 1)
        return found + _evaluate(sizes, folder)


def _cache(sizes: Sizes) -> CacheParams:
    return CacheParams(size=sizes.size, train_fraction=0.5, min_chroma=0)


def _preprocess(sizes: Sizes, folder: Path, listing: pd.DataFrame) -> list[Row]:
    """The usual way has no such stage: it does the same work whenever a photo is opened."""
    usual = textbook.PhotoFolder(folder / "photos", sizes.size)
    some = range(min(64, sizes.photos))

    def own(processes: int | None) -> Callable[[], Any]:
        return lambda: build(listing, folder / "photos", folder / "cache", _cache(sizes), 1, processes)

    candidates: dict[str, tuple[int, Callable[[], Any]]] = {
        "textbook, opening photos": (len(some), lambda: [usual[index] for index in some]),
        "recolor, one process": (sizes.photos, own(1)),
    }
    if sizes.children:
        candidates["recolor, a process for each core"] = (sizes.photos, own(_processors()))
    seconds = in_turn({name: work for name, (_, work) in candidates.items()}, max(1, sizes.repeats // 2))
    speeds = {name: count / seconds[name] for name, (count, _) in candidates.items()}
    first = next(iter(speeds.values()))
    found = [Row("preprocess", name, speed, "photos/s", speed / first) for name, speed in speeds.items()]
    return found + (_start_and_slope(sizes, folder, listing, seconds) if sizes.children else [])


def _start_and_slope(sizes: Sizes, folder: Path, listing: pd.DataFrame, seconds: dict[str, float]) -> list[Row]:
    """What a build with processes takes before its first photo, and for each: from the whole and from a quarter of it."""
    some = listing[: sizes.photos // 4]
    quarter = in_turn(
        {"quarter": lambda: build(some, folder / "photos", folder / "quarter", _cache(sizes), 1, _processors())},
        max(1, sizes.repeats // 2),
    )["quarter"]
    whole = seconds["recolor, a process for each core"]
    slope = (whole - quarter) / (sizes.photos - len(some))
    return [
        Row("preprocess", "recolor, a process for each core, a photo", 1000 * slope, "ms"),
        Row("preprocess", "recolor, a process for each core, to start", whole - slope * sizes.photos, "s"),
    ]


def _processors() -> int:
    """As many for a part of the photos as for all, where `build` would take fewer."""
    return max(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _feed(sizes: Sizes, photos: CachedPhotos) -> Generator[Tensor]:
    """For ever."""
    source = Feed(photos, sizes.batch, True, 1, Machine.find().device, Crew(), "auto")
    epoch = 0
    while True:
        yield from source.epoch(epoch)
        epoch += 1


def _data(sizes: Sizes, folder: Path, photos: CachedPhotos) -> list[Row]:
    """Batches alone, without a step to hide behind; eight of them each time.

    One side after the other: in turn, the textbook's workers would read ahead while ours are timed.
    """
    sides = {
        f"textbook, {WORKERS} workers": textbook.batches(folder / "photos", sizes.size, sizes.batch, WORKERS),
        "recolor": _feed(sizes, photos),
    }
    speeds: dict[str, float] = {}
    for name, batches in sides.items():
        seconds = in_turn({name: lambda batches=batches: [next(batches) for _ in range(8)]}, sizes.repeats)[name]
        batches.close()  # ends the workers
        speeds[name] = 8 * sizes.batch / seconds
    first = next(iter(speeds.values()))
    return [Row("batches of photos", name, speed, "photos/s", speed / first) for name, speed in speeds.items()]


def _loop(sizes: Sizes, folder: Path) -> list[Row]:
    """Step and photos together: what a user waits for."""
    with (
        apart(sizes, _usual_loop, folder) as usual,
        apart(sizes, _own_loop, folder, within=ours.as_in_training) as own,
    ):
        seconds = in_turn({"textbook": usual["step"], "recolor": own["step"]}, sizes.repeats)
        waiting = own["waiting"]()
    gain = seconds["textbook"] / seconds["recolor"]
    return [
        Row("training, GAN", "textbook, fp32", sizes.batch / seconds["textbook"], "photos/s", 1),
        Row("training, GAN", f"recolor, {ours.precision()}", sizes.batch / seconds["recolor"], "photos/s", gain),
        Row("training, GAN", "recolor, waiting for photos", 100 * waiting, "% of the time"),
    ]


def _usual_loop(sizes: Sizes, folder: Path) -> dict[str, Callable[[], Any]]:
    trainer = textbook.Trainer(sizes.filters, sizes.downs, Machine.find().device)
    batches = textbook.batches(folder / "photos", sizes.size, sizes.batch, WORKERS)
    return {"step": lambda: trainer.step(*next(batches))}


def _own_loop(sizes: Sizes, folder: Path) -> dict[str, Callable[[], Any]]:
    trainer, batches = ours.Trainer(sizes, "gan"), _feed(sizes, CachedPhotos(folder / "cache", "train"))
    waits, whole = [], []

    def step() -> None:
        start = time.perf_counter()
        real = next(batches)
        waits.append(time.perf_counter() - start)
        trainer.step(real)
        synchronise()
        whole.append(time.perf_counter() - start)

    return {"step": step, "waiting": lambda: sum(waits[1:]) / sum(whole[1:])}


def _evaluate(sizes: Sizes, folder: Path) -> list[Row]:
    """Two models on all photos, Inception included, with random weights in all networks: they take as long as any."""
    generator = UNetGenerator(ours.networks(sizes)[0])
    for name in ("gan", "wgan"):
        save_generator(folder / name, generator, {})
    params = Params(ours.PARAMS).section("evaluate", EvaluateParams)
    models = {name: folder / name for name in ("gan", "wgan")}
    with _random_inception(folder) if sizes.inception else contextlib.nullcontext() as weights:
        wanted = "required" if sizes.inception else "off"
        params = params.model_copy(update={"inception": wanted, "inception_weights": weights})
        forward, resize = (
            UNetGenerator.forward,
            fid.interpolate_bilinear_2d_like_tensorflow1x,
        )  # untimed, for the textbook
        inside: list[float] = []
        resizing: list[float] = []  # to 299x299, which Inception's part holds
        with (
            _timed(UNetGenerator, "forward", inside),
            _timed(inception.Inception, "__call__", inside),
            _timed(inception, "clean_resize", resizing),
            _timed(fid, "interpolate_bilinear_2d_like_tensorflow1x", resizing),
        ):
            own, usual = [], []
            for _ in range(ROUNDS):  # in turn
                start = time.perf_counter()
                evaluate(folder / "scored", models, folder / "metrics", params, RuntimeParams(), 1)
                own.append(time.perf_counter() - start)
                start = time.perf_counter()
                with (
                    mock.patch.object(UNetGenerator, "forward", forward),
                    mock.patch.object(fid, "interpolate_bilinear_2d_like_tensorflow1x", resize),
                ):
                    file = weights / inception.TORCH_FIDELITY if weights else None
                    textbook.evaluate(folder / "photos", sizes.size, sizes.scored, [generator.eval()] * 2, file)
                usual.append(time.perf_counter() - start)
    speed, usual_speed = (sizes.scored / statistics.median(seconds) for seconds in (own, usual))
    what = "FID, KID and IS" if sizes.inception else "no Inception"
    share = 100 * (1 - (sum(inside) - sum(resizing)) / sum(own))
    return [
        Row("evaluate", "textbook, 2 models, a photo at a time, FID's passes alone", usual_speed, "photos/s", 1.0),
        Row("evaluate", f"recolor, 2 models, {what}", speed, "photos/s", speed / usual_speed),
        Row("evaluate", "recolor, outside the networks", share, "% of the time"),
    ]


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
    """The tests' random weights, which pass for the published ones within the block."""
    script = Path(__file__).parent.parent / "tests" / "helpers" / "random_inception.py"
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # TorchScript, clean-fid's format
        runpy.run_path(str(script), run_name="random_inception")["write"](folder)
    digests = {name: sha256((folder / name).read_bytes()).hexdigest() for name in inception.SHA256}
    with mock.patch.dict(inception.SHA256, digests):
        yield folder
