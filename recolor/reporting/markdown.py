"""The report as text: rows in, Markdown out. Computes no score; what was not measured stays empty."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from recolor.evaluation.metrics import METRICS, SPLITS, Metric, set_metrics_in_use
from recolor.evaluation.pictures import GREY
from recolor.evaluation.set_metrics import IS_SPLITS, KID_SUBSET_SIZE, KID_SUBSETS
from recolor.models.objectives import MODELS
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
# Hours that its 100 epochs took, about: dataset, GAN, WGAN.
PAPER_HOURS = [("COCO", 4, 5), ("ImageNet", 8, 10)]

HEADLINE = (
    "`loss: {loss}` in `params.yaml` selects this model; [metrics.json](metrics.json) holds its scores. Recipe: `{recipe}`. "
    "All models are in the tables below. On the test split, which no model saw in training:"
)
SAMPLE = (
    "> [!CAUTION]\n"
    "> **`{dataset}` proves that the pipeline works; its scores mean nothing.** It is {used} overlapping crops of the {groups} "
    "colour photos that scikit-image contains, and its test split shows {test_groups} of them. Train on `coco`, `imagenet` or "
    "your own photos for meaningful scores."
)
GREY_NOTE = (
    "> [!WARNING]\n"
    "> **Doing nothing scores well too.** `grey` is the grey photo itself (ab = 0). On the test split it gets {scores}. PSNR "
    "and SSIM reward that: the lightness, which holds nearly all of a photo's structure, is right, and where the colour cannot "
    "be known, no colour has a smaller error than a vivid wrong one. Colourfulness beside the true photos', FD-Lite0, "
    "KID-Lite0, FID and KID show what grey lacks."
)
PAPER_NOTE = (
    f"*paper*: {PAPER_SOURCE}. It does not state which of its two datasets, COCO or ImageNet, its numbers are for, nor which "
    "kind of FID they are: 0.03 to 0.09 is the scale of FID-64, so they stand beside that."
)
CONVENTIONS = """\
Everything is measured on the 8-bit RGB pictures that a user gets, generated in eval mode. N is the number of pictures.
Colours outside sRGB are made greyer until they are inside, with their lightness kept; most code clips each channel.

- **PSNR** (dB): of each picture over RGB, peak 255; then the mean over pictures. *Pooled* is the PSNR of the mean squared
  error of all pictures together; it is lower.
- **SSIM**: Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03; the mean over RGB, then over pictures.
- **Colourfulness**: Hasler and Suesstrunk (2003), signed differences; 0 is grey. *True* is the true photos' value; *distance*
  is the absolute difference of a picture's value from its true photo's, the mean over pictures.
- **[low, high]**: 95% bootstrap interval of the mean, {bootstrap} resamplings, seeded. Photos are drawn, not their crops;
  there is none where all pictures come from one photo.
- **FD-Lite0**, **KID-Lite0**: the Frechet distance and the kernel distance of FID and KID, on the 1280 pooled features of
  EfficientNet-Lite0 instead of Inception's, of whole pictures resized to 224x224. They need no download, so they are always
  there. They compare rows of one table, with equal N. They do not compare with the FID or KID of other papers.
- **FID**: as clean-fid, 2048 features. **FID-64**: as torchmetrics, 64 features of an early layer, on another scale. Both, and
  FD-Lite0, fall as N grows: compare them at equal N only.
- **KID** and **KID-Lite0**: unbiased, so they suit small sets; shown times 1000. ± is the standard deviation over {subsets}
  subsets of {subset_size} pictures; sets of at most that size have none.
- **IS**: as torchmetrics, ± the standard deviation over {is_splits} splits."""
TIMINGS = (
    "Training alone, on the machine that trained; checkpoints have a column of their own. A model from DVC's cache keeps the "
    "times of the machine that made it. In an epoch every critic sees each full batch once; the WGAN's generator makes one "
    "step for `wgan.n_critic` steps of its critic."
)


def results_markdown(results: Sequence[Results], loss: str, versions: Mapping[str, str]) -> str:
    """reports/results.md, with the datasets in their order; `loss` names the headline's model."""
    blocks = ["# Results", f"## Headline: {MODELS[loss].label}", *_headline(results, loss)]
    for result in results:
        blocks += [f"## {result.dataset}", *_scores(result), *_figures(result), *_origin(result)]
    conventions = CONVENTIONS.format(
        bootstrap=results[0].settings["evaluate"]["bootstrap"],
        subsets=KID_SUBSETS,
        subset_size=KID_SUBSET_SIZE,
        is_splits=IS_SPLITS,
    )
    blocks += ["## How the scores are measured", conventions]
    blocks += [
        "## Versions",
        "Of the software that wrote this report:",
        table(["package", "version"], versions.items()),
    ]
    return "\n\n".join(blocks) + "\n"


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
    header = ["dataset", "model", "machine", "epochs", "seconds", "s/epoch", "photos/s"]
    header += ["waiting for photos", "s for checkpoints"]
    paper = table(["dataset", "GAN", "WGAN"], [(name, f"{gan} h", f"{wgan} h") for name, gan, wgan in PAPER_HOURS])
    of_paper = f"The paper's, about, for 100 epochs. {PAPER_SOURCE}."
    return "\n\n".join(["# Timings", TIMINGS, table(header, rows), of_paper, paper]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns that hold only numbers are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(not row[i] or row[i][0] in "-0123456789" for row in cells) for i in range(len(header))]
    lines = [header, ["---:" if numbers else "---" for numbers in right], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _measured(metric: Metric, *scores: pd.DataFrame) -> bool:
    return any(bool(table[metric.name].notna().any()) for table in scores)


def _headline(results: Sequence[Results], loss: str) -> list[str]:
    scores = [result.scores for result in results]
    metrics = [metric for metric in METRICS.values() if metric.headline and _measured(metric, *scores)]
    rows, grey = [], []
    for result in results:
        for model, name in ((loss, f"**{MODELS[loss].label}**"), (GREY, MODELS[GREY].label)):
            row = result.score("test", model)
            cells = [
                f"{metric.shown(row[metric.name])} (true {metric.shown(row[f'{metric.name}_true'])})"
                if metric.better == "truth"
                else metric.cell(row)
                for metric in metrics
            ]
            rows.append([result.dataset, name, row["photos"], *cells])
        grey.append(f"{row['psnr']:.2f} dB and an SSIM of {row['ssim']:.3f} on `{result.dataset}`")
    samples = [
        SAMPLE.format(dataset=result.dataset, **asdict(result.counts))
        for result in results
        if result.settings["data"][result.dataset]["source"] == "sample"
    ]
    header = ["dataset", "model", "N", *(metric.heading for metric in metrics)]
    text = HEADLINE.format(loss=loss, recipe=results[0].settings["recipe"])
    return [text, table(header, rows), *samples, GREY_NOTE.format(scores="; ".join(grey))]


def _scores(result: Results) -> list[str]:
    beside = [metric for metric in METRICS.values() if metric.name in IN_PAPER]
    beyond = [metric for metric in METRICS.values() if metric not in beside and _measured(metric, result.scores)]
    with_paper, others = [], []
    for _, row in result.scores.iterrows():
        known = [row["split"], MODELS[row["model"]].label, row["photos"]]
        paper = PAPER.get((row["split"], row["model"]), {})
        with_paper.append([*known])
        for metric in beside:
            name = IN_PAPER[metric.name]
            with_paper[-1] += [metric.cell(row), f"{paper[name]:g}" if name in paper else ""]
        others.append([*known, METRICS["psnr"].shown(row["psnr_pooled"])])
        for metric in beyond:
            others[-1].append(metric.cell(row))
            if metric.better == "truth":
                others[-1].append(metric.shown(row[f"{metric.name}_true"]))
    header = ["split", "model", "N"]
    columns = [heading for metric in beside for heading in (metric.heading, "paper")]
    blocks = ["### Beside the paper", table([*header, *columns], with_paper), *_why_empty(result), PAPER_NOTE]
    columns = ["pooled PSNR (dB) ↑"]
    for metric in beyond:
        columns += [metric.heading, "true"] if metric.better == "truth" else [metric.heading]
    blocks += ["### Beyond the paper", table([*header, *columns], others)]
    blocks.append(f"![Bars of the scores](figures/{result.dataset}-scores.png)")
    return [*blocks, f"![PSNR against colourfulness](figures/{result.dataset}-tradeoff.png)"]


def _why_empty(result: Results) -> list[str]:
    scores, reason = result.scores, result.notes["inception"]
    missing = [m.label for m in set_metrics_in_use() if not _measured(m, scores[scores["photos"] >= m.minimum])]
    blocks = [f"**Not measured: {', '.join(missing)}.** Reason: {reason}."] if reason and missing else []
    few = [m for m in set_metrics_in_use() if m.label not in missing and (scores["photos"] < m.minimum).any()]
    return blocks + [f"**{m.label} is empty where N is small:** it needs at least {m.minimum} pictures." for m in few]


def _figures(result: Results) -> list[str]:
    """Links to the figures, by the names that `report` gives them."""
    blocks = [
        "### Photos",
        "Drawn with the seed, the same for all models; below each its PSNR, and grey's. Shown at most 176 pixels wide.",
    ]
    folder = f"figures/{result.dataset}"
    for split in SPLITS:
        for model in result.models:
            title = f"{MODELS[model].label}, {split} split"
            blocks += [f"**{title}**", f"![{title}]({folder}-{model}-{split}.png)"]
    for model in result.models:
        title = f"{MODELS[model].label}, best and worst by PSNR, test split"
        blocks += [f"**{title}**", f"![{title}]({folder}-{model}-extremes.png)"]
    return [*blocks, "### Training", f"![Training curves]({folder}-curves.png)"]


def _origin(result: Results) -> list[str]:
    counts = result.counts
    used = "photos" if counts.used == counts.groups else f"crops of {counts.groups} photos"
    left_out = ", ".join(f"{count} ({reason})" for reason, count in counts.rejected.items()) or "none"
    machines = "; ".join(f"{MODELS[model].label} on {machine}" for model, machine in result.machines.items())
    text = StringIO()
    YAML().dump(result.settings, text)
    return [
        "### Data, machines and settings",
        f"{counts.used} {used}: {counts.train} to train, {counts.test} to test. Left out: {left_out}. Trained: {machines}.",
        f"<details><summary>Settings</summary>\n\n```yaml\n{text.getvalue()}```\n\n</details>",
    ]
