"""Figures, as PIL pictures, in matplotlib's default style, whatever the user's: the same input gives the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from recolor.evaluation.metrics import METRICS, SPLITS, Metric
from recolor.models.objectives import MODELS, PRETRAINED

Photos = NDArray[np.uint8]  # (N, H, W, 3), RGB

INK, QUIET, PENALTY = "#24292f", "#8c959f", "#cc79a7"
BETTER = {"higher": "higher is better", "lower": "lower is better", "truth": "near the line is better"}
RATIO = "gradient_ratio"  # column of history.csv
STYLE: list[str | Path] = ["default", Path(__file__).parent / "templates/report.mplstyle"]


def image_grid(rows: Mapping[str, Photos], captions: Sequence[str] = ()) -> Image.Image:
    """One row of photos, not scaled, for each entry of `rows`, with its key at the left; captions, if any, below columns."""
    count, height, width = next(iter(rows.values())).shape[:3]
    font = ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", max(9, height // 13))
    left = line = sum(font.getmetrics()) + 6
    gap = max(2, height // 64)
    size = (left + count * (width + gap) - gap, len(rows) * (height + gap) - gap + (line if captions else 0))
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for row, (label, photos) in enumerate(rows.items()):
        y = row * (height + gap)
        strip = Image.new("RGB", (height, left), "white")
        ImageDraw.Draw(strip).text((height / 2, left / 2), label, INK, font, anchor="mm")
        grid.paste(strip.transpose(Image.Transpose.ROTATE_90), (0, y))
        for column, photo in enumerate(photos):
            grid.paste(Image.fromarray(photo), (left + column * (width + gap), y))
    for column, caption in enumerate(captions):
        x = left + column * (width + gap) + width // 2
        draw.text((x, size[1] - line // 2), caption, INK, font, anchor="mm")
    return grid


@matplotlib.style.context(STYLE)
def curves(histories: Mapping[str, pd.DataFrame]) -> Image.Image:
    """Training curves from each model's history.csv: L1 of all, where pretraining (`l1`) ends at epoch 0; each model's
    adversarial losses, which share no unit; and the adversarial gradient as a multiple of L1's, where it was measured."""
    adversarial = {name: history for name, history in histories.items() if name != PRETRAINED}
    balanced = {
        name: history for name, history in adversarial.items() if RATIO in history and history[RATIO].notna().any()
    }
    count = 1 + len(adversarial) + bool(balanced)
    figure = Figure(figsize=(3.2 * count, 2.8), layout="constrained")
    l1, *panels = figure.subplots(1, count, squeeze=False).ravel()
    for name, history in histories.items():
        if name == PRETRAINED:
            history = history.assign(epoch=history["epoch"] - len(history))
        _line(l1, history, "generator_l1", MODELS[name].label, MODELS[name].color)
    _finish(l1, "L1 (ab / 110)")
    for panel, (name, history) in zip(panels, adversarial.items(), strict=False):
        _losses(panel, name, history)
    for name, history in balanced.items():
        _line(panels[-1], history, RATIO, MODELS[name].label, MODELS[name].color)
    if balanced:
        _finish(panels[-1], "Adversarial / L1 gradient")
    return _render(figure)


def _losses(panel: Axes, name: str, history: pd.DataFrame) -> None:
    model = MODELS[name]
    if model.guessing:
        loss, written = model.guessing
        panel.axhline(loss, color=QUIET, linewidth=0.8, linestyle=":", label=f"{written}: guessing")
        _line(panel, history, "critic_loss", "critic", model.color)
    else:
        _line(panel, history, "critic_estimate", "critic's estimate", model.color)
        if history["critic_penalty"].fillna(0).any():
            _line(panel, history, "critic_penalty", "gradient penalty", PENALTY)
    _line(panel, history, "generator_adversarial", "generator", INK, "--")
    _finish(panel, f"{model.label}: adversarial losses")


@matplotlib.style.context(STYLE)
def bars(scores: pd.DataFrame) -> Image.Image:
    """Scores of each model on each split, a panel for each metric that was measured, with the metric's `interval`."""
    scores = scores.replace(np.inf, np.nan)  # the PSNR of a perfect copy has no bar
    measured = [metric for metric in METRICS.values() if scores[metric.name].notna().any()]
    columns = min(4, len(measured))
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(9.6, 0.35 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, metric in zip(panels, measured, strict=False):
        _bar_panel(panel, scores, metric)
    for panel in panels[len(measured) :]:
        panel.set_axis_off()
    handles = [Patch(color=MODELS[model].color, label=MODELS[model].label) for model in scores["model"].unique()]
    true = Line2D([], [], color="black", linewidth=1.5, label="true photos")
    figure.legend(handles=[*handles, true], loc="outside upper left", ncols=len(handles) + 1)
    return _render(figure)


def _bar_panel(panel: Axes, scores: pd.DataFrame, metric: Metric) -> None:
    models, splits = list(scores["model"].unique()), list(scores["split"].unique())
    width = 0.8 / len(models)
    for _, row in scores.iterrows():
        value = row[metric.name] * metric.scale
        x = splits.index(row["split"]) + (models.index(row["model"]) - (len(models) - 1) / 2) * width
        panel.bar(x, value, width * 0.94, color=MODELS[row["model"]].color)
        low, high = metric.interval(row)
        if low < high:
            panel.plot([x, x], [low, high], color=INK, linewidth=1)
        if pd.notna(value):
            above, text = (x, max(value, high, 0)), metric.shown(row[metric.name])
            outline = [withStroke(linewidth=1.5, foreground="white")]  # legible over the line of the true photos
            panel.annotate(
                text, above, (0, 2), textcoords="offset points", ha="center", fontsize=5, path_effects=outline
            )
        if metric.better == "truth":
            middle, true = splits.index(row["split"]), row[f"{metric.name}_true"] * metric.scale
            panel.plot([middle - 0.42, middle + 0.42], [true, true], color="black", linewidth=1.5)
    panel.set_title(f"{metric.label_with_unit}\n{BETTER[metric.better]}")
    panel.set_xticks(range(len(splits)), splits)
    panel.tick_params(axis="x", length=0)
    panel.margins(x=0.02, y=0.12)


@matplotlib.style.context(STYLE)
def tradeoff(scores: pd.DataFrame) -> Image.Image:
    """PSNR against colourfulness on the test split: a point for each model, with 95% intervals. The line is the true photos."""
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    panel = figure.subplots()
    test = scores.replace(np.inf, np.nan)[scores["split"] == SPLITS[0]]
    x, y = METRICS["colourfulness"], METRICS["psnr"]
    for _, row in test.iterrows():
        model, point = MODELS[row["model"]], (row[x.name], row[y.name])
        panel.plot(x.interval(row), [point[1]] * 2, color=model.color, linewidth=1)
        panel.plot([point[0]] * 2, y.interval(row), color=model.color, linewidth=1)
        panel.plot(*point, "o", color=model.color, markersize=5, label=model.label)
    panel.axvline(test[f"{x.name}_true"].iloc[0], color="black", linewidth=1.5, label="true photos")
    panel.set_title(f"{y.label} against {x.label}, test split", pad=18)
    panel.set_xlabel(x.label)
    panel.set_ylabel(y.label_with_unit)
    panel.margins(0.1)
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(test) + 1)
    return _render(figure)


def _line(panel: Axes, history: pd.DataFrame, column: str, label: str, color: str, style: str = "-") -> None:
    points = history[["epoch", column]].dropna()  # without an adversary there are no adversarial losses
    marker = "o" if len(points) < 12 else ""
    panel.plot(points["epoch"], points[column], style, color=color, label=label, marker=marker, markersize=3)


def _finish(panel: Axes, title: str) -> None:
    panel.set_title(title, pad=18)
    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)


def _render(figure: Figure) -> Image.Image:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
