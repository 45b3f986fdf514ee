"""The report as text, from the templates beside this module. Computes no score; what was not measured stays empty."""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from recolor.evaluation.metrics import METRICS, SPLITS, Metric, SetMetric, set_metrics
from recolor.evaluation.set_metrics import IS_SPLITS, KID_SUBSET_SIZE, KID_SUBSETS
from recolor.models.objectives import MODELS
from recolor.reporting.rendering import render
from recolor.reporting.results import Results

PAPER_SOURCE = "Ozfirat, Senol and Kose: Image-to-Image Translation (Recoloring) with WGAN. University of Padova"
# The paper's table of results.
PAPER: dict[tuple[str, str], dict[str, float]] = {
    ("test", "gan"): {"fid": 0.038, "psnr": 21.31, "ssim": 0.8664, "is": 12.66},
    ("test", "wgan"): {"fid": 0.086, "psnr": 17.5777, "ssim": 0.7385, "is": 12.386},
    ("train", "gan"): {"fid": 0.026, "psnr": 22.17, "ssim": 0.87, "is": 12.034},
    ("train", "wgan"): {"fid": 0.039, "psnr": 17.14, "ssim": 0.8264, "is": 11.482},
}
IN_PAPER = {"psnr": "psnr", "ssim": "ssim", "fid64": "fid", "is": "is"}  # our metric: the paper's name
CONSTANTS: dict[str, Any] = {
    "models": MODELS,
    "splits": SPLITS,
    "metrics": METRICS,
    "paper": PAPER,
    "paper_source": PAPER_SOURCE,
    "in_paper": IN_PAPER,
    "subsets": KID_SUBSETS,
    "subset_size": KID_SUBSET_SIZE,
    "is_splits": IS_SPLITS,
}


def results_markdown(results: Sequence[Results], loss: str, versions: Mapping[str, str]) -> str:
    """reports/results.md, with the datasets in their order; `loss` names the headline's model."""
    return render(
        "results.md",
        **CONSTANTS,
        results=results,
        loss=loss,
        in_headline=[
            m for m in METRICS.values() if m.headline and _measured(m, *(result.scores for result in results))
        ],
        beyond_the_paper=_beyond_the_paper,
        unmeasured=_unmeasured,
        unmeasured_where_few=_unmeasured_where_few,
        origin=_origin,
        as_yaml=_as_yaml,
        versions=versions,
    )


def timings_markdown(results: Sequence[Results]) -> str:
    """reports/timings.md: apart from the other files, because times differ from run to run."""
    rows = []
    for result in results:
        for model, machine in result.machines.items():
            timings = result.timings[result.timings["model"] == model]
            seconds, epochs = timings["seconds"].sum(), len(timings)
            waited = (timings["seconds"] * timings["data_wait"]).sum() / seconds
            times = [f"{time:.1f}" for time in (seconds, seconds / epochs, timings["photos"].sum() / seconds)]
            saving = f"{timings['checkpoints'].sum():.1f}"
            rows.append([result.dataset, MODELS[model].label, machine, epochs, *times, f"{waited:.1%}", saving])
    return render("timings.md", rows=rows, paper_source=PAPER_SOURCE)


def _measured(metric: Metric, *scores: pd.DataFrame) -> bool:
    return any(bool(table[metric.name].notna().any()) for table in scores)


def _beyond_the_paper(result: Results) -> list[Metric]:
    return [metric for name, metric in METRICS.items() if name not in IN_PAPER and _measured(metric, result.scores)]


def _unmeasured(result: Results) -> list[SetMetric]:
    scores = result.scores
    return [m for m in set_metrics() if not _measured(m, scores[scores["photos"] >= m.minimum])]


def _unmeasured_where_few(result: Results) -> list[SetMetric]:
    few = [metric for metric in set_metrics() if (result.scores["photos"] < metric.minimum).any()]
    return [metric for metric in few if metric not in _unmeasured(result)]


def _origin(result: Results) -> str:
    counts = result.counts
    used = "photos" if counts.used == counts.groups else f"crops of {counts.groups} photos"
    left_out = ", ".join(f"{count} ({reason})" for reason, count in counts.rejected.items()) or "none"
    machines = "; ".join(f"{MODELS[model].label} on {machine}" for model, machine in result.machines.items())
    return f"{counts.used} {used}: {counts.train} to train, {counts.test} to test. Left out: {left_out}. Trained: {machines}."


def _as_yaml(settings: Mapping[str, Any]) -> str:
    text = StringIO()
    YAML().dump(settings, text)
    return text.getvalue()
