"""The registry of metrics: how each is named, shown and computed. A new one is an entry in METRICS."""

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import Tensor

from recolor.evaluation.image_metrics import colourfulness, colourfulness_distance, psnr, ssim
from recolor.evaluation.set_metrics import (
    IS_SPLITS,
    Features,
    Score,
    frechet_distance,
    inception_score,
    kernel_distance,
)

SPLITS: tuple[Literal["test", "train"], ...] = ("test", "train")  # in the order of every table
Row = Any  # of scores.csv: a mapping or a pandas Series
ARROWS = {"higher": " ↑", "lower": " ↓", "truth": ""}


@dataclass(frozen=True)
class Metric:
    """A score: a column of scores.csv, and how people see it."""

    name: str
    label: str
    better: Literal["higher", "lower", "truth"]  # truth: a score near the true photos' own is good
    digits: str  # format of a shown value
    _: KW_ONLY
    unit: str = ""
    scale: float = 1.0  # a shown value is the stored one times this; the label says so
    headline: bool = False  # in the table at the top of the report, and in `recolor models`

    @property
    def label_with_unit(self) -> str:
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def heading(self) -> str:
        """The heading of a table's column: label, unit and direction."""
        return self.label_with_unit + ARROWS[self.better]

    @property
    def columns(self) -> dict[str, str]:
        """The score's columns in photos.csv and scores.csv, each with its heading in a table."""
        return {self.name: self.heading} | ({f"{self.name}_true": "true"} if self.better == "truth" else {})

    def shown(self, value: float | None) -> str:
        """A stored value as text, "" where it was not measured."""
        return "" if value is None or math.isnan(value) else format(value * self.scale, self.digits)

    def cell(self, row: Row) -> str:
        """The score as text, with its interval or deviation where there is one."""
        raise NotImplementedError

    def cells(self, row: Row) -> list[str]:
        """The `cell`, and the true photos' own score where there is one: a cell for each of `columns`."""
        return [self.cell(row), *(self.shown(row[column]) for column in list(self.columns)[1:])]

    def interval(self, row: Row) -> tuple[float, float]:
        """What a figure draws around the score of a row of scores.csv, scaled; NaN where there is nothing to draw."""
        raise NotImplementedError


@dataclass(frozen=True)
class ImageMetric(Metric):
    """A score of each picture; the set's score is the mean, with a 95% interval in NAME_low and NAME_high.

    `compute` gets output and truth, (B, 3, H, W) 8-bit RGB, and returns (B,). Where `better` is truth, evaluation also stores
    the true photos' own score, `compute(truth, truth)`, in NAME_true.
    """

    compute: Callable[[Tensor, Tensor], Tensor]

    def cell(self, row: Row) -> str:
        low, high = (self.shown(row[f"{self.name}_{end}"]) for end in ("low", "high"))
        return self.shown(row[self.name]) + (f" [{low}, {high}]" if low and high else "")

    def interval(self, row: Row) -> tuple[float, float]:
        return row[f"{self.name}_low"] * self.scale, row[f"{self.name}_high"] * self.scale


@dataclass(frozen=True)
class SetMetric(Metric):
    """A score of a whole set of pictures, from the features of a network; with a standard deviation in NAME_std, or none."""

    compute: Callable[[Features, Features, int], Score]  # of outputs and true photos, (N, D), and a seed
    features: str  # a name that a network of `features.py` provides
    minimum: int = 2  # pictures; a covariance needs two

    def cell(self, row: Row) -> str:
        deviation = self.shown(row[f"{self.name}_std"])
        return self.shown(row[self.name]) + (f" ± {deviation}" if deviation else "")

    def interval(self, row: Row) -> tuple[float, float]:
        value, deviation = row[self.name] * self.scale, row[f"{self.name}_std"] * self.scale
        return value - deviation, value + deviation


# In the order of the report. Labels name the network of a set score: scores of different networks do not compare.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        ImageMetric("psnr", "PSNR", "higher", ".2f", psnr, unit="dB", headline=True),
        ImageMetric("ssim", "SSIM", "higher", ".3f", ssim, headline=True),
        ImageMetric("colourfulness", "colourfulness", "truth", ".1f", colourfulness, headline=True),
        ImageMetric("colourfulness_distance", "colourfulness distance", "lower", ".1f", colourfulness_distance),
        SetMetric("fd_lite0", "FD-Lite0", "lower", ".1f", frechet_distance, "lite0"),
        SetMetric("kid_lite0", "KID-Lite0 x1000", "lower", ".2f", kernel_distance, "lite0", scale=1000, headline=True),
        SetMetric("fid", "FID", "lower", ".2f", frechet_distance, "inception", headline=True),
        SetMetric("fid64", "FID-64", "lower", ".3f", frechet_distance, "inception_early"),
        SetMetric("kid", "KID x1000", "lower", ".2f", kernel_distance, "inception", scale=1000),
        # Of one picture the Inception score is 1, whatever the picture.
        SetMetric("is", "IS", "higher", ".2f", inception_score, "inception_logits", minimum=2 * IS_SPLITS),
    )
}


def image_metrics() -> list[ImageMetric]:
    return [metric for metric in METRICS.values() if isinstance(metric, ImageMetric)]


def set_metrics() -> list[SetMetric]:
    return [metric for metric in METRICS.values() if isinstance(metric, SetMetric)]
