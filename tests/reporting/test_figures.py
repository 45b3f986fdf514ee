"""Figures, by their pixels: photos unscaled and in their places, charts that show their data."""

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageColor

from recolor.evaluation.metrics import SPLITS, image_metrics, set_metrics
from recolor.models.objectives import MODELS
from recolor.reporting.figures import PENALTY, bars, curves, image_grid, tradeoff

COLORS = {name: model.color for name, model in MODELS.items()}


def area(picture: Image.Image, color: str) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(picture) == ImageColor.getrgb(color)).all(axis=-1).sum())


@pytest.fixture
def photos() -> np.ndarray:
    """Three rows of four photos, 24 high and 20 wide, no pixel of them white."""
    return np.random.default_rng(0).integers(0, 250, (3, 4, 24, 20, 3), dtype=np.uint8)


def history(**columns: list[float]) -> pd.DataFrame:
    base = {
        "epoch": [1, 2, 3],
        "critic_loss": [0.7, 0.6, 0.5],
        "critic_estimate": [0.1, 0.2, 0.3],
        "critic_penalty": [0.0, 0.0, 0.0],
        "generator_adversarial": [0.8, 0.9, 1.0],
        "generator_l1": [0.1, 0.08, 0.07],
    }
    return pd.DataFrame(base | columns)


def scores(**columns: object) -> pd.DataFrame:
    rows = [{"split": split, "model": model} for split in SPLITS for model in MODELS]
    measured: dict[str, object] = {"colourfulness_true": 40.0}
    for metric in image_metrics():
        measured |= {metric.name + end: 20.0 for end in ("", "_low", "_high")}
    for metric in set_metrics():
        measured |= {metric.name: np.nan, f"{metric.name}_std": np.nan}
    return pd.DataFrame(rows).assign(**measured).assign(**columns)


def test_a_grid_shows_every_photo_pixel_for_pixel_in_its_row_and_column(photos: np.ndarray) -> None:
    grid = np.asarray(image_grid(dict(zip(["input", "output", "truth"], photos, strict=True)), ["a", "b", "c", "d"]))
    gap = 2
    left = grid.shape[1] - 4 * 20 - 3 * gap  # the labels' strip
    for row in range(3):
        for column in range(4):
            y, x = row * (24 + gap), left + column * (20 + gap)
            assert (grid[y : y + 24, x : x + 20] == photos[row, column]).all()
    assert (grid[24:26] == 255).all(), "rows lie apart"
    assert (grid[: 3 * 24, left + 20 : left + 22] == 255).all(), "columns lie apart"


def test_labels_stand_beside_their_rows_and_captions_below_their_columns(photos: np.ndarray) -> None:
    rows = {"input": photos[0], "": photos[1], "truth": photos[2]}
    grid = np.asarray(image_grid(rows, ["one", "", "three", ""]))
    left = grid.shape[1] - 4 * 20 - 3 * 2
    inked = [(grid[y : y + 24, :left] < 128).any() for y in (0, 26, 52)]
    assert inked == [True, False, True]
    below = grid[3 * 24 + 2 * 2 :, left:]
    assert [(below[:, x : x + 20] < 128).any() for x in (0, 22, 44, 66)] == [True, False, True, False]
    assert image_grid(rows).height == 3 * 24 + 2 * 2, "no captions, no room for them"


def test_curves_show_both_models_and_the_penalty_where_there_is_one() -> None:
    clipped = curves({"gan": history(), "wgan": history()})
    penalised = curves({"gan": history(), "wgan": history(critic_penalty=[1.0, 0.5, 0.2])})
    assert area(clipped, COLORS["gan"]) > 100
    assert area(clipped, COLORS["wgan"]) > 100
    assert area(clipped, PENALTY) == 0 < area(penalised, PENALTY)


def test_curves_without_an_adversary_show_l1_alone() -> None:
    nothing = [np.nan] * 3
    baseline = history(
        critic_loss=nothing, critic_estimate=nothing, critic_penalty=nothing, generator_adversarial=nothing
    )
    with_adversary = curves({"gan": history(), "wgan": history()})
    without = curves({"gan": baseline, "wgan": baseline})
    assert 0 < area(without, COLORS["gan"]) < area(with_adversary, COLORS["gan"])


def test_curves_end_pretraining_at_epoch_0_and_show_a_measured_balance() -> None:
    histories = {"l1": history()[["epoch", "generator_l1"]], "gan": history(), "wgan": history()}
    plain = curves(histories)
    assert area(plain, COLORS["l1"]) > 100
    balanced = curves(histories | {"gan": history(gradient_ratio=[0.4, 0.5, 0.5])})
    assert balanced.width > plain.width


def test_bars_are_as_high_as_their_scores() -> None:
    psnr = [5.0, 15.0, 20.0, 10.0] * 2
    others = {metric.name: np.nan for metric in image_metrics() if metric.name != "psnr"}
    chart = bars(scores(psnr=psnr, psnr_low=psnr, psnr_high=psnr, **others))
    panel = np.asarray(chart)[60:]  # below the legend
    heights = {
        model: int((panel == ImageColor.getrgb(color)).all(axis=-1).any(axis=1).sum())
        for model, color in COLORS.items()
    }
    assert heights["l1"] == pytest.approx(3 * heights["grey"], abs=4)
    assert heights["gan"] == pytest.approx(2 * heights["wgan"], abs=3)
    assert heights["wgan"] == pytest.approx(2 * heights["grey"], abs=3)


def test_scores_that_were_not_measured_have_no_panel() -> None:
    without = bars(scores())
    with_sets = bars(scores(**{metric.name: 0.5 for metric in set_metrics()}))
    assert with_sets.width == without.width
    assert with_sets.height > 1.5 * without.height


def test_an_infinite_score_leaves_its_bar_out() -> None:
    assert bars(scores(psnr=np.inf)).size == bars(scores(psnr=np.nan)).size


def test_the_tradeoff_has_a_point_for_each_model_of_the_test_split() -> None:
    colourful = np.linspace(0.1, 32, len(MODELS))
    psnr = 23 - np.abs(colourful - 15) / 20
    table = scores(colourfulness=[*colourful] * 2, psnr=[*psnr] * 2)
    columns = {}
    for model, color in COLORS.items():
        found = (np.asarray(tradeoff(table)) == ImageColor.getrgb(color)).all(axis=-1)
        columns[model] = np.nonzero(found)[1].mean()
    assert sorted(columns, key=columns.__getitem__) == list(MODELS)
    shifted = scores(colourfulness=[*colourful] * 2, psnr=[*psnr, *psnr - 9])  # the train split is not shown
    assert tradeoff(shifted).tobytes() == tradeoff(table).tobytes()


def test_charts_do_not_depend_on_the_users_own_style() -> None:
    expected = [curves({"gan": history(), "wgan": history()}).tobytes(), bars(scores()).tobytes()]
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "black", "figure.dpi": 50, "lines.linewidth": 9}):
        assert [curves({"gan": history(), "wgan": history()}).tobytes(), bars(scores()).tobytes()] == expected
