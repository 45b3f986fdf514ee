"""The figures of the comparison: PSNR against colourfulness, training curves, and scikit-image's photos."""

from pathlib import Path

import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from docs.runs import show
from docs.study.grid import ARMS, Run, read_runs
from docs.study.running import model_folder
from docs.study.tables import CURVES, RESULTS
from recolor.core.errors import UserError
from recolor.models.objectives import ADVERSARIAL
from recolor.reporting.figures import INK, QUIET, STYLE

TRADEOFF, HISTORY, PHOTOS = "tradeoff.png", "curves.png", "photos.jpg"
MARKERS = "os^Dv"  # one for each balance
PANELS = {
    "generator_l1": "L1 (ab / 110)",
    "critic_estimate": "Critic: mean D(real) - mean D(fake)",
    "generator_adversarial": "Generator's adversarial loss",
    "gradient_ratio": "Adversarial / L1 gradient",
}


def write_all(study: Path, out: Path) -> None:
    """Draws what `collect` wrote into `out`, the histories of the models, and their colours of scikit-image's photos."""
    if not (out / RESULTS).exists():
        raise UserError(f"{out / RESULTS} is missing: collect first")
    runs = {run.name: run for run in read_runs(study / "runs").values()}
    _save(tradeoff(pd.read_csv(out / RESULTS), pd.read_csv(out / CURVES)), out / TRADEOFF)
    trained = {name: run for name, run in runs.items() if ARMS[run.arm].model in ADVERSARIAL}
    histories = {name: pd.read_csv(model_folder(study, run) / "history.csv") for name, run in trained.items()}
    if histories:
        _save(curves(histories, trained), out / HISTORY)
    first: dict[str, Path] = {}
    for run in runs.values():  # of the first seed
        first.setdefault(run.label, model_folder(study, run))
    show.main(out / PHOTOS, first)


@matplotlib.style.context(STYLE)
def tradeoff(results: pd.DataFrame, strengths: pd.DataFrame) -> Figure:
    """A point for each model of results.csv, on its curve of strengths (curves.csv); the vertical line is the true photos."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    panel = figure.subplots()
    balances = sorted(results["balance"].dropna().unique()) if "balance" in results else []
    for _, row in results.iterrows():
        color = ARMS[row["arm"]].color
        balance = row.get("balance")
        marker = MARKERS[(balances.index(balance) + 1) % len(MARKERS)] if pd.notna(balance) else MARKERS[0]
        curve = strengths[strengths["name"] == row["name"]].sort_values("strength")
        if row["name"] != "grey":
            panel.plot(curve["colourfulness"], curve["psnr"], color=color, linewidth=0.9, alpha=0.7)
        panel.plot(row["colourfulness"], row["psnr"], marker, color=color, markersize=6, markeredgecolor="white")
    panel.axvline(results["colourfulness_true"].iloc[0], color="black", linewidth=1.5)
    handles = [
        Line2D([], [], color=ARMS[arm].color, marker="o", label=ARMS[arm].label) for arm in results["arm"].unique()
    ]
    for number, balance in enumerate(balances, 1):
        marker = MARKERS[number % len(MARKERS)]
        handles.append(
            Line2D([], [], color=QUIET, marker=marker, markersize=6, linestyle="", label=f"balance {balance:g}")
        )
    handles.append(Line2D([], [], color="black", linewidth=1.5, label="true photos"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5)
    low, high = strengths["strength"].min(), strengths["strength"].max()
    panel.set_title(f"PSNR against colourfulness; each curve: strength {low:g} to {high:g}")
    panel.set_xlabel("colourfulness")
    panel.set_ylabel("PSNR (dB)")
    return figure


@matplotlib.style.context(STYLE)
def curves(histories: dict[str, pd.DataFrame], runs: dict[str, Run]) -> Figure:
    """What history.csv holds of each model, over its generator steps. A line style for each balance."""
    figure = Figure(figsize=(3.2 * len(PANELS), 3.0), layout="constrained")
    balances = sorted({run.balance or 0 for run in runs.values()}, reverse=True)
    styles = dict(zip(balances, ("-", "--", ":", "-."), strict=False))
    panels: dict[str, Axes] = dict(zip(PANELS, figure.subplots(1, len(PANELS)), strict=True))
    for column, panel in panels.items():
        for name, history in histories.items():
            run, points = runs[name], history.get(["generator_steps", column])
            if points is not None and points[column].notna().any():
                points = points.dropna()
                marker = "o" if len(points) < 12 else ""
                line, color = styles.get(run.balance or 0, "-"), ARMS[run.arm].color
                panel.plot(points["generator_steps"], points[column], line, color=color, marker=marker, markersize=3)
        panel.set_title(PANELS[column])
        panel.set_xlabel("generator steps")
    panels["gradient_ratio"].axhline(0, color=QUIET, linewidth=0.6)
    arms = dict.fromkeys(run.arm for run in runs.values())
    handles = [Line2D([], [], color=ARMS[arm].color, label=ARMS[arm].label) for arm in arms]
    handles += [
        Line2D([], [], color=INK, linestyle=styles[b], label=f"balance {b:g}" if b else "fixed weights")
        for b in balances
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
