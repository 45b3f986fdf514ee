"""What people look at: grids of photos, training curves, bars of scores.

Every function returns a PIL picture and touches no file. Grids are pasted, so that each photo stands there pixel for pixel,
as it was measured. Charts are matplotlib's, in its default style, whatever the user's own, with the font that it ships: the
same input gives the same bytes. Everything is on white, which reads in a light and in a dark page; colours are Okabe and
Ito's, which colour-blind readers tell apart.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Photos = NDArray[np.uint8]  # (N, H, W, 3), RGB

NAMES = {"grey": "grey", "gan": "GAN", "wgan": "WGAN"}
COLORS = {"grey": "#9a9a9a", "gan": "#0072b2", "wgan": "#d55e00"}
INK = "#24292f"
STYLE = {
    "figure.dpi": 160,
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8c959f",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e4e7ea",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "legend.borderpad": 0,
}

# A column of scores.csv, its title, and how a bar is lettered.
BARS = [
    ("psnr", "PSNR (dB), higher is better", ".1f"),
    ("ssim", "SSIM, higher is better", ".3f"),
    ("colourfulness", "Colourfulness, near the line", ".0f"),
    ("fid", "FID, lower is better", ".0f"),
    ("fid64", "FID-64, lower is better", ".3f"),
    ("kid", "KID, lower is better", ".3f"),
    ("is", "IS, higher is better", ".1f"),
]


def image_grid(rows: Mapping[str, Photos], captions: Sequence[str] = ()) -> Image.Image:
    """One row of photos for each entry of `rows`, its key written up the side, a caption under each column.

    The rows hold equally many photos of one size, and there is a caption for each column or none. No photo is scaled.
    """
    first = next(iter(rows.values()))
    count, height, width = first.shape[:3]
    if any(photos.shape != first.shape for photos in rows.values()) or len(captions) not in (0, count):
        raise ValueError("a grid takes rows of one shape, and a caption for each column or none")
    font = _font(max(9, height // 13))
    line = sum(font.getmetrics()) + 6
    gap = max(2, height // 64)
    left = line
    size = (left + count * (width + gap) - gap, len(rows) * (height + gap) - gap + (line if captions else 0))
    grid = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(grid)
    for row, (label, photos) in enumerate(rows.items()):
        y = row * (height + gap)
        grid.paste(_sideways(label, font, (left, height)), (0, y))
        for column, photo in enumerate(photos):
            grid.paste(Image.fromarray(photo), (left + column * (width + gap), y))
    for column, caption in enumerate(captions):
        x = left + column * (width + gap) + width // 2
        draw.text((x, size[1] - line // 2), caption, INK, font, anchor="mm")
    return grid


@matplotlib.style.context(["default", STYLE])
def curves(histories: Mapping[str, pd.DataFrame]) -> Image.Image:
    """Training curves of the models `gan` and `wgan` (those that are there), from their history.csv.

    L1 has one panel for both, since it means the same for both. The games have a panel each: a critic's cross-entropy and a
    Wasserstein estimate share no unit.
    """
    figure = Figure(figsize=(9.6, 2.8), layout="constrained")
    l1, *games = figure.subplots(1, 1 + len(histories))
    for model, history in histories.items():
        _line(l1, history, "generator_l1", NAMES[model], COLORS[model])
    _finish(l1, "L1 (ab / 110)")
    for panel, (model, history) in zip(games, histories.items(), strict=True):
        if model == "gan":
            panel.axhline(np.log(2), color="#8c959f", linewidth=0.8, linestyle=":", label="ln 2: guessing")
            _line(panel, history, "critic_loss", "critic", COLORS[model])
        else:
            _line(panel, history, "critic_estimate", "critic's estimate", COLORS[model])
            if history["critic_penalty"].fillna(0).any():
                _line(panel, history, "critic_penalty", "gradient penalty", "#009e73")
        _line(panel, history, "generator_adversarial", "generator", INK, "--")
        _finish(panel, f"{NAMES[model]}: adversarial losses")
    return _render(figure)


@matplotlib.style.context(["default", STYLE])
def bars(scores: pd.DataFrame) -> Image.Image:
    """Scores of each model on each split (rows of scores.csv), a panel for each score that was measured.

    Lines on the bars are 95% intervals, for KID and IS one standard deviation either way; a black line is the true photos'.
    """
    scores = scores.replace(np.inf, np.nan)  # the PSNR of a perfect copy has no bar
    measured = [bar for bar in BARS if scores[bar[0]].notna().any()]
    columns = min(4, len(measured))
    rows = -(-len(measured) // columns)
    figure = Figure(figsize=(9.6, 0.35 + 2.1 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (column, title, letters) in zip(panels, measured, strict=False):
        _bar_panel(panel, scores, column, letters)
        panel.set_title(title)
    for panel in panels[len(measured) :]:
        panel.set_axis_off()
    handles = [Patch(color=COLORS[model], label=NAMES[model]) for model in scores["model"].unique()]
    true = Line2D([], [], color="black", linewidth=1.5, label="true photos")
    figure.legend(handles=[*handles, true], loc="outside upper left", ncols=len(handles) + 1)
    return _render(figure)


def _bar_panel(panel: Axes, scores: pd.DataFrame, column: str, letters: str) -> None:
    models, splits = list(scores["model"].unique()), list(scores["split"].unique())
    width = 0.8 / len(models)
    for _, row in scores.iterrows():
        value = row[column]
        x = splits.index(row["split"]) + (models.index(row["model"]) - (len(models) - 1) / 2) * width
        panel.bar(x, value, width * 0.94, color=COLORS[row["model"]])
        low, high = _interval(row, column)
        if low < high:
            panel.plot([x, x], [low, high], color=INK, linewidth=1)
        if pd.notna(value):
            above = (x, max(value, high, 0))
            panel.annotate(format(value, letters), above, (0, 2), textcoords="offset points", ha="center", fontsize=6)
        if column == "colourfulness":
            middle = splits.index(row["split"])
            panel.plot([middle - 0.42, middle + 0.42], [row["colourfulness_true"]] * 2, color="black", linewidth=1.5)
    panel.set_xticks(range(len(splits)), splits)
    panel.tick_params(axis="x", length=0)
    panel.margins(x=0.02, y=0.12)


def _interval(row: "pd.Series[Any]", column: str) -> tuple[float, float]:
    if f"{column}_low" in row:
        return row[f"{column}_low"], row[f"{column}_high"]
    deviation = row.get(f"{column}_std", 0.0)
    return row[column] - deviation, row[column] + deviation


def _line(panel: Axes, history: pd.DataFrame, column: str, label: str, color: str, style: str = "-") -> None:
    points = history[["epoch", column]].dropna()  # no adversary: no adversarial losses
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


def _font(size: int) -> ImageFont.FreeTypeFont:
    """The font of the charts, out of matplotlib's own package."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def _sideways(label: str, font: ImageFont.FreeTypeFont, size: tuple[int, int]) -> Image.Image:
    """`label` from bottom to top in the middle of a white strip of `size` (width, height)."""
    strip = Image.new("RGB", size[::-1], "white")
    ImageDraw.Draw(strip).text((size[1] / 2, size[0] / 2), label, INK, font, anchor="mm")
    return strip.transpose(Image.Transpose.ROTATE_90)
