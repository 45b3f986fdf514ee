"""How long `recolor colorize` takes, beside its parts measured alone and beside scikit-image's way through Lab and back."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data
from skimage.color import lab2rgb, rgb2lab

from benchmarks.measuring import Budget, Sizes, in_turn
from benchmarks.table import Row
from recolor.inference.colorizer import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.plan import plan
from recolor.models.unet import UNetGenerator, UNetParams

PART = "colorize"


def rows(sizes: Sizes, seconds: float) -> Iterator[Row]:
    """A large photo, a larger one, and a folder of small ones, coloured by an untrained U-Net of the default size."""
    colorizer = _colorizer(sizes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large, larger = (_photo(folder / f"{number}.jpg", pixels) for number, pixels in enumerate(sizes.megapixels))
        budget = Budget(seconds, 3)
        yield from _large(colorizer, large, sizes, budget.share())
        yield _per_pixel(colorizer, large, larger, sizes, budget.share())
        yield _small(colorizer, folder / "small", sizes, budget.share())


def _large(colorizer: Colorizer, photo: Path, sizes: Sizes, seconds: float) -> Iterator[Row]:
    with Image.open(photo) as file:
        image = file.convert("RGB")
    pixels = np.asarray(image)
    timings = in_turn(
        {
            "colorize": lambda: _colorize(colorizer, [photo]),
            "decode": lambda: Image.open(photo).load(),
            "network": lambda: colorizer.predict([image]),
            "encode": lambda: image.save(photo.with_suffix(".x.jpg"), quality=95, subsampling="4:4:4"),
            "scikit-image": lambda: lab2rgb(rgb2lab(pixels)),
        },
        *(sizes.repeats, seconds),
    )
    taken, note = timings.medians, timings.note(sizes.repeats)
    alone = sum(taken[name] for name in ("decode", "network", "encode"))
    what = f"scikit-image, RGB to Lab and back, {sizes.megapixels[0]:g} megapixels"
    yield Row(PART, what, taken["scikit-image"], "s", note=note)
    yield Row(PART, "decode, network and encode, each alone, added up", alone, "s", note=note)
    yield Row(PART, "recolor, all of it", taken["colorize"], "s", taken["scikit-image"] / taken["colorize"], note=note)


def _per_pixel(colorizer: Colorizer, large: Path, larger: Path, sizes: Sizes, seconds: float) -> Row:
    timings = in_turn(
        {photo: lambda photo=photo: _colorize(colorizer, [photo]) for photo in (large, larger)}, sizes.repeats, seconds
    )
    times = [timings.medians[photo] / np.prod(Image.open(photo).size) for photo in (large, larger)]
    what = f"{sizes.megapixels[1]:g} megapixels, time a pixel against {sizes.megapixels[0]:g}"
    return Row(PART, what, float(times[1] / times[0]), "times", note=timings.note(sizes.repeats))


def _small(colorizer: Colorizer, folder: Path, sizes: Sizes, seconds: float) -> Row:
    folder.mkdir()
    for number in range(sizes.small_photos):
        _photo(folder / f"{number}.jpg", sizes.photo_size[0] * sizes.photo_size[1] / 1e6)
    timings = in_turn({"folder": lambda: _colorize(colorizer, [folder])}, sizes.repeats, seconds)
    what = (
        f"a folder of {sizes.small_photos} photos of {sizes.photo_size[0] * sizes.photo_size[1] / 1e6:.2g} megapixels"
    )
    return Row(PART, what, sizes.small_photos / timings.medians["folder"], "photos/s", note=timings.note(sizes.repeats))


def _colorize(colorizer: Colorizer, photos: list[Path]) -> None:
    with tempfile.TemporaryDirectory() as out:
        problems = [job.problem for job in colorize_files(colorizer, plan(photos, Path(out))) if job.problem]
    if problems:
        raise RuntimeError(problems[0])


def _colorizer(sizes: Sizes) -> Colorizer:
    torch.manual_seed(0)
    generator = UNetGenerator(UNetParams(kind="unet", filters=sizes.filters, downs=sizes.downs, dropout=0.5))
    with torch.no_grad():
        for weight in generator.parameters():
            weight.mul_(2.5 if weight.ndim == 4 else 1)  # as colourful as a trained one
    return Colorizer(generator, {"size": sizes.size})


def _photo(path: Path, megapixels: float) -> Path:
    """scikit-image's astronaut, enlarged or reduced, as a square."""
    image = Image.fromarray(data.astronaut())
    side = max(1, round((megapixels * 1e6) ** 0.5))
    image.resize((side, side), Image.Resampling.BICUBIC).save(path, quality=92)
    return path
