"""The tables of the comparison: a row for each model, differences from the GAN, and the curves of --strength."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from docs.study import measure
from docs.study.grid import ARMS, Run, read_runs
from docs.study.running import model_folder, timings_file
from recolor.core.errors import UserError
from recolor.evaluation.features import FeatureNetwork, Lite0
from recolor.evaluation.image_metrics import bootstrap
from recolor.evaluation.inception import Inception, find_weights
from recolor.evaluation.metrics import METRICS, SetMetric, image_metrics
from recolor.models.folder import read_card, weights_sha256
from recolor.models.objectives import ADVERSARIAL
from recolor.runtime.context import RuntimeContext

RESULTS, DIFFERENCES, CURVES = "results.csv", "differences.csv", "curves.csv"
STEPS = ("generator_steps", "critic_steps")
GREY = Run("grey", None, None, "")


@dataclass(frozen=True)
class Measured:
    """One model: its row of results.csv, its test photos (photos.csv), and these at every strength."""

    run: Run
    row: dict[str, Any]
    photos: pd.DataFrame
    curve: pd.DataFrame


def collect(study: Path, out: Path, inception: Path | None) -> pd.DataFrame:
    """Measures every model of the study, writes the three tables into `out` and returns results.csv."""
    found = measure_all(study, inception)
    results = pd.DataFrame([one.row for one in found]).dropna(axis="columns", how="all")
    out.mkdir(parents=True, exist_ok=True)
    results.to_csv(out / RESULTS, index=False)
    differences(found).to_csv(out / DIFFERENCES, index=False)
    curves = [
        one.curve.groupby("strength")[list(measure.OF_CURVE)].mean().reset_index().assign(name=one.run.name)
        for one in found
    ]
    pd.concat(curves)[["name", "strength", *measure.OF_CURVE]].to_csv(out / CURVES, index=False)
    return results


def measure_all(study: Path, inception: Path | None) -> list[Measured]:
    cache, device = study / "cache", RuntimeContext.find().device
    networks: list[FeatureNetwork] = [Lite0(device)]
    if inception is not None:
        networks.append(Inception(find_weights(inception), device))
    runs = {GREY: None} | {run: model_folder(study, run) for run in read_runs(study / "runs").values()}
    if len(runs) == 1:
        raise UserError(f"{study}: no models: run or add some first")
    common = (networks, device)
    _, _, true = measure.measured(study / "truth/scores", "truth", cache, lambda: measure.truth, *common)
    found = []
    for run, folder in runs.items():
        scores = study / ("runs" if folder else "") / run.name / "scores"
        if folder is None:
            photos, curve, features = measure.measured(scores, "grey", cache, lambda: measure.grey, *common)
        else:
            colour = lambda folder=folder: measure.model(folder, cache, device)  # noqa: E731
            photos, curve, features = measure.measured(scores, weights_sha256(folder), cache, colour, *common)
        row = _description(study, run) | measure.summary(photos, features, true)
        found.append(Measured(run, row, photos, curve))
    return found


def _description(study: Path, run: Run) -> dict[str, Any]:
    """The columns of results.csv before the scores: what the model is, its steps, and what they cost."""
    arm = ARMS[run.arm]
    row: dict[str, Any] = {"name": run.name, "arm": run.arm}
    row |= dict.fromkeys(
        ("recipe", "adversary", "constraint", "balance", "seed", *STEPS, "epochs", "seconds", "machine")
    )
    if run == GREY:
        return row
    row |= {"recipe": arm.recipe, "balance": run.balance, "seed": run.seed}
    folder, timings = model_folder(study, run), timings_file(study, run)
    card, history = read_card(folder), pd.read_csv(folder / "history.csv")
    if arm.model in ADVERSARIAL:
        row |= {"adversary": arm.model, "constraint": card["params"][arm.model].get("constraint")}
    if len(history):
        row |= {steps: int(history[steps].iloc[-1]) for steps in STEPS}
    row["seconds"] = pd.read_csv(timings)["seconds"].sum() if timings.exists() else None
    return row | {"epochs": card["epochs"], "machine": card["machine"]}


def differences(found: Sequence[Measured]) -> pd.DataFrame:
    """Each arm's scores minus those of the GAN of the same balance and seed, a row for each arm, balance and metric.

    Pictures' scores are paired by photo, and all seeds pooled: the 95% interval is a bootstrap over photos, each drawn with
    all its seeds. L1, which has one seed, is paired with every GAN. A set's scores have no interval.
    """
    by_key = {(one.run.arm, one.run.balance, one.run.seed): one for one in found}
    names = [metric.name for metric in image_metrics()]
    rows = []
    for arm, balance in dict.fromkeys((one.run.arm, one.run.balance) for one in found if ARMS[one.run.arm].reference):
        reference = ARMS[arm].reference
        balances = {key[1] for key in by_key if key[0] == reference}
        for of in sorted(balances, key=lambda b: b or 0) if arm in ("l1", "grey") else [balance]:
            seeds = sorted(key[2] for key in by_key if key[:2] == (reference, of))
            pairs = [(by_key.get((arm, balance, seed)) or by_key.get((arm, None, None)), seed) for seed in seeds]
            both = [(one, by_key[reference, of, seed]) for one, seed in pairs if one is not None]
            if arm == reference or not both:
                continue
            metrics = measure.measured_metrics(pd.DataFrame([one.row for pair in both for one in pair]))
            rows += [_difference(arm, of, both, metric, metric in names) for metric in metrics]
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = ["arm", "balance", "minus", "seeds", "photos", "metric", "value", "of_reference", "difference", "low", "high"]


def _difference(
    arm: str, balance: float | None, pairs: list[tuple[Measured, Measured]], metric: str, of_photos: bool
) -> dict[str, Any]:
    value, of_reference = (sum(pair[i].row[metric] for pair in pairs) / len(pairs) for i in (0, 1))
    low = high = None
    if of_photos:
        paired = pd.concat([one.photos[metric] - other.photos[metric] for one, other in pairs])
        groups = pd.concat([one.photos["group"] for one, _ in pairs])
        values = paired.to_numpy()[:, None]
        (low,), (high,) = bootstrap(values, groups.to_numpy(), measure.RESAMPLINGS, measure.SEED)
    seeds, photos = len(pairs), len(pairs[0][0].photos)
    numbers = [value, of_reference, value - of_reference, low, high]
    return dict(zip(COLUMNS, [arm, balance, ARMS[arm].reference, seeds, photos, metric, *numbers], strict=True))


def markdown(results: pd.DataFrame) -> str:
    """results.csv as the table of a page: scores with their intervals, by the registry's labels and digits."""
    shown = [METRICS[name] for name in measure.measured_metrics(results)]
    steps = (*STEPS, "seconds")
    lines = ["| model | N | " + " | ".join([*(s.replace("_", " ") for s in steps), *(m.heading for m in shown)]) + " |"]
    lines.append("| --- |" + " ---: |" * (1 + len(steps) + len(shown)))
    for _, row in results.iterrows():
        cells = [row["name"], row["photos"], *("" if pd.isna(row.get(s)) else f"{row[s]:.0f}" for s in steps)]
        for metric in shown:
            lacking = isinstance(metric, SetMetric) and f"{metric.name}_std" not in row
            cells.append(metric.shown(row[metric.name]) if lacking else metric.cell(row))
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)
