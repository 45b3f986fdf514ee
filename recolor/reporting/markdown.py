"""The report as people read it: rows in, text out. No score is computed here; what was not measured stays empty."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

import pandas as pd
from ruamel.yaml import YAML

from recolor.reporting.figures import NAMES
from recolor.reporting.results import SPLITS, Results

PAPER_SOURCE = "Ozfirat, Senol and Kose: Image-to-Image Translation (Recoloring) with WGAN. University of Padova"
# The paper's table of results.
PAPER: dict[tuple[str, str], dict[str, float]] = {
    ("test", "gan"): {"fid": 0.038, "psnr": 21.31, "ssim": 0.8664, "is": 12.66},
    ("test", "wgan"): {"fid": 0.086, "psnr": 17.5777, "ssim": 0.7385, "is": 12.386},
    ("train", "gan"): {"fid": 0.026, "psnr": 22.17, "ssim": 0.87, "is": 12.034},
    ("train", "wgan"): {"fid": 0.039, "psnr": 17.14, "ssim": 0.8264, "is": 11.482},
}
# Hours that its 100 epochs took, about: dataset, GAN, WGAN.
PAPER_HOURS = [("COCO", 4, 5), ("ImageNet", 8, 10)]

HEADLINE = (
    "`loss: {loss}` in `params.yaml` makes it the headline; [metrics.json](metrics.json) holds its scores. Both models are "
    "in the tables below. On the test split, which no model saw in training:"
)
SAMPLE = (
    "> [!CAUTION]\n"
    "> **`{dataset}` proves the pipeline; its scores mean nothing.** It is {used} overlapping crops of the {groups} colour "
    "photos that scikit-image ships, and its test split shows {test_groups} of them. Train on `coco`, `imagenet` or your own "
    "photos for numbers that say something."
)
GREY = (
    "> [!WARNING]\n"
    "> **Doing nothing scores too.** `grey` hands the grey photo back (ab = 0), and on the test split gets {scores}. PSNR and "
    "SSIM reward that: the lightness, which holds nearly all of a photo's structure, is right already, and where nobody can "
    "know the colour, no colour errs less than a vivid wrong one. FID, and colourfulness beside the true photos', show what "
    "grey misses."
)
PAPER_NOTE = (
    f"*paper*: {PAPER_SOURCE}. It does not say which of its two datasets, COCO or ImageNet, its numbers are for, nor which "
    "kind of FID it took: 0.03 to 0.09 is of the scale of FID-64, so they stand beside that."
)
CONVENTIONS = """\
Everything is measured on the 8-bit RGB picture that a user gets, generated in eval mode. N is the number of pictures.
Colours outside sRGB are made greyer until they are inside, at their own lightness, where most code clips each channel.

- **PSNR** (dB): of each picture over RGB, peak 255; then the mean over pictures. *Pooled* is the PSNR of the mean squared
  error of all pictures together; it is lower.
- **SSIM**: Gaussian window 11x11, sigma 1.5, K1 0.01, K2 0.03; the mean over RGB, then over pictures.
- **Colourfulness**: Hasler and Suesstrunk (2003), signed differences; 0 is grey. *True* is the true photos'; *distance* is
  how far a picture's is from its true photo's, the mean over pictures.
- **[low, high]**: 95% bootstrap interval of the mean, {bootstrap} resamplings, seeded. Photos are drawn, not their crops;
  there is none where all pictures come from one photo.
- **FID**: clean-fid, 2048 features. **FID-64**: torchmetrics, 64 features of an early layer: another scale. Both fall as N
  grows: compare at equal N alone.
- **KID**: clean-fid's, made for small sets, ± the standard deviation over 100 subsets of at most 1000 pictures.
- **IS**: torchmetrics, ± the standard deviation over 10 splits."""
TIMINGS = (
    "Training alone, and beside it its checkpoints, on the machine that trained; a model out of DVC's cache keeps the times of "
    "the machine that made it. In an epoch either critic sees every full batch once; the WGAN's generator steps once for "
    "`wgan.n_critic` steps of its critic."
)


def results_markdown(results: Sequence[Results], loss: str, versions: Mapping[str, str]) -> str:
    """reports/results.md, for the datasets in their order; `loss` names the headline's model."""
    blocks = ["# Results", f"## Headline: {NAMES[loss]}", *_headline(results, loss)]
    for result in results:
        blocks += [f"## {result.dataset}", *_scores(result), *_figures(result), *_origin(result)]
    bootstrap = results[0].settings["evaluate"]["bootstrap"]
    blocks += ["## How the scores are taken", CONVENTIONS.format(bootstrap=bootstrap)]
    blocks += ["## Versions", "Of what wrote this report:", table(["package", "version"], versions.items())]
    return "\n\n".join(blocks) + "\n"


def timings_markdown(results: Sequence[Results]) -> str:
    """reports/timings.md. Times differ from run to run: they stand apart, so that nothing else does."""
    rows = []
    for result in results:
        for model, machine in result.machines.items():
            timings = result.timings[result.timings["model"] == model]
            seconds, epochs = timings["seconds"].sum(), len(timings)
            waited = (timings["seconds"] * timings["data_wait"]).sum() / seconds
            times = [f"{time:.1f}" for time in (seconds, seconds / epochs, timings["photos"].sum() / seconds)]
            saving = timings["checkpoints"].sum(min_count=1) if "checkpoints" in timings else None
            rows.append([result.dataset, NAMES[model], machine, epochs, *times, f"{waited:.1%}", number(saving, ".1f")])
    header = ["dataset", "model", "machine", "epochs", "seconds", "s/epoch", "photos/s"]
    header += ["waiting for photos", "s for checkpoints"]
    paper = table(["dataset", "GAN", "WGAN"], [(name, f"{gan} h", f"{wgan} h") for name, gan, wgan in PAPER_HOURS])
    of_paper = f"The paper's, about, for 100 epochs. {PAPER_SOURCE}."
    return "\n\n".join(["# Timings", TIMINGS, table(header, rows), of_paper, paper]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; columns that hold numbers alone are aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    right = [all(not row[i] or row[i][0] in "-0123456789" for row in cells) for i in range(len(header))]
    lines = [header, ["---:" if numbers else "---" for numbers in right], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: str) -> str:
    """`value` in so many digits, such as ".2f"; nothing where it was not measured."""
    return "" if pd.isna(value) else format(value, digits)


def with_interval(row: "pd.Series[Any]", column: str, digits: str) -> str:
    low, high = number(row[f"{column}_low"], digits), number(row[f"{column}_high"], digits)
    return number(row[column], digits) + (f" [{low}, {high}]" if low and high else "")


def with_deviation(row: "pd.Series[Any]", column: str, digits: str) -> str:
    deviation = number(row[f"{column}_std"], digits)
    return number(row[column], digits) + (f" ± {deviation}" if deviation else "")


def _headline(results: Sequence[Results], loss: str) -> list[str]:
    rows, grey = [], []
    for result in results:
        for model, name in ((loss, f"**{NAMES[loss]}**"), ("grey", NAMES["grey"])):
            row = result.score("test", model)
            colour = f"{number(row['colourfulness'], '.1f')} (true {number(row['colourfulness_true'], '.1f')})"
            close = [with_interval(row, "psnr", ".2f"), with_interval(row, "ssim", ".3f")]
            rows.append([result.dataset, name, row["photos"], *close, colour, number(row["fid"], ".2f")])
        grey.append(f"{row['psnr']:.2f} dB and an SSIM of {row['ssim']:.3f} on `{result.dataset}`")
    samples = [
        SAMPLE.format(dataset=result.dataset, **asdict(result.counts))
        for result in results
        if result.settings["data"][result.dataset]["source"] == "sample"
    ]
    header = ["dataset", "model", "N", "PSNR ↑", "SSIM ↑", "colourfulness", "FID ↓"]
    return [HEADLINE.format(loss=loss), table(header, rows), *samples, GREY.format(scores="; ".join(grey))]


def _scores(result: Results) -> list[str]:
    beside, beyond = [], []
    for _, row in result.scores.iterrows():
        name = [row["split"], NAMES[row["model"]], row["photos"]]
        paper = {key: f"{value:g}" for key, value in PAPER.get((row["split"], row["model"]), {}).items()}
        fid = [number(row["fid"], ".2f"), number(row["fid64"], ".4f"), paper.get("fid", "")]
        psnr = [with_interval(row, "psnr", ".2f"), paper.get("psnr", "")]
        ssim = [with_interval(row, "ssim", ".3f"), paper.get("ssim", "")]
        inception_score = [with_deviation(row, "is", ".2f"), paper.get("is", "")]
        beside.append([*name, *fid, *psnr, *ssim, *inception_score])
        colour = [with_interval(row, "colourfulness", ".1f"), number(row["colourfulness_true"], ".1f")]
        colour.append(with_interval(row, "colourfulness_distance", ".1f"))
        beyond.append([*name, with_deviation(row, "kid", ".4f"), number(row["psnr_pooled"], ".2f"), *colour])
    reason = result.notes["inception"]
    empty = [f"**FID, FID-64, KID and IS are empty:** {reason}."] if reason else []
    name = ["split", "model", "N"]
    scores = ["FID ↓", "FID-64 ↓", "paper", "PSNR ↑", "paper", "SSIM ↑", "paper", "IS ↑", "paper"]
    blocks = ["### Beside the paper", table([*name, *scores], beside), *empty, PAPER_NOTE]
    scores = ["KID ↓", "pooled PSNR ↑", "colourfulness", "true", "distance ↓"]
    blocks += ["### Beyond the paper", table([*name, *scores], beyond)]
    return [*blocks, f"![Bars of the scores](figures/{result.dataset}-scores.png)"]


def _figures(result: Results) -> list[str]:
    """Links to the figures, by the names that `report` gives them."""
    drawn = (
        "Drawn by the seed, the same for both models; under each its PSNR, and grey's. Shown at most 176 pixels wide."
    )
    blocks = ["### Photos", drawn]
    folder = f"figures/{result.dataset}"
    for split in SPLITS:
        for model in result.models:
            title = f"{NAMES[model]}, {split} split"
            blocks += [f"**{title}**", f"![{title}]({folder}-{model}-{split}.png)"]
    for model in result.models:
        title = f"{NAMES[model]}, best and worst by PSNR, test split"
        blocks += [f"**{title}**", f"![{title}]({folder}-{model}-extremes.png)"]
    return [*blocks, "### Training", f"![Training curves]({folder}-curves.png)"]


def _origin(result: Results) -> list[str]:
    counts = result.counts
    used = "photos" if counts.used == counts.groups else f"crops of {counts.groups} photos"
    left_out = ", ".join(f"{count} ({reason})" for reason, count in counts.rejected.items()) or "none"
    machines = "; ".join(f"{NAMES[model]} on {machine}" for model, machine in result.machines.items())
    text = StringIO()
    YAML().dump(result.settings, text)
    return [
        "### What made it",
        f"{counts.used} {used}: {counts.train} to train, {counts.test} to test. Left out: {left_out}. Trained: {machines}.",
        f"<details><summary>Settings</summary>\n\n```yaml\n{text.getvalue()}```\n\n</details>",
    ]
