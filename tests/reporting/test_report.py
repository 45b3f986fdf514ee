"""The report, from small made-up results to each of its files."""

import contextlib
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clone import contents
from made_up_results import REASON, write_results
from PIL import Image
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull
from recolor.evaluation.metrics import METRICS, SetMetric, image_metrics_in_use
from recolor.reporting import report
from recolor.reporting.figures import bars
from recolor.reporting.markdown import results_markdown, timings_markdown
from recolor.reporting.report import headline, write
from recolor.reporting.results import Results
from stages import paths
from stages.report import main as report_stage

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = {"python": "3.11.7", "torch": "2.15.0"}
PAPER_TABLE = """
| test | GAN | 0.038 | 21.31 | 0.8664 | 12.66 |
| test | WGAN | 0.086 | 17.5777 | 0.7385 | 12.386 |
| train | GAN | 0.026 | 22.17 | 0.87 | 12.034 |
| train | WGAN | 0.039 | 17.14 | 0.8264 | 11.482 |
"""


@pytest.fixture
def sample(tmp_path: Path) -> Results:
    return write_results(tmp_path, "sample", inception=False, source={"source": "sample", "crops": 4})


@pytest.fixture
def mine(tmp_path: Path) -> Results:
    return write_results(
        tmp_path, "mine", inception=True, source={"source": "folder", "path": "/home/me/photos", "limit": None}
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def blank_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws no charts, which takes a second for each report, in tests of everything else."""
    for name in ("bars", "curves", "tradeoff"):
        monkeypatch.setattr(report, name, lambda _: Image.new("RGB", (9, 9)))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows_under(markdown: str, dataset: str, title: str) -> list[list[str]]:
    """The rows of the table under `### title` of `## dataset`, without its header."""
    section = markdown.split(f"## {dataset}\n")[1].split(f"### {title}\n")[1].split("\n#")[0]
    return [cells(line) for line in section.splitlines() if line.startswith("|")][2:]


def outline(markdown: str) -> str:
    """Headings, tables, figures and settings as they are; `...` for each paragraph of prose."""
    kept = re.compile(r"#|\||!\[|```|\s*\w+:|  - |$")
    lines = (line if kept.match(line) else "..." for line in markdown.splitlines())
    return "".join(f"{line}\n" for line, _ in itertools.groupby(lines))


def test_the_outline_of_the_report(sample: Results, mine: Results) -> None:
    expected = (GOLDEN / "results.md").read_text(encoding="utf-8")
    assert outline(results_markdown([sample, mine], "gan", VERSIONS)) == expected


def test_the_outline_of_the_timings(sample: Results) -> None:
    assert outline(timings_markdown([sample])) == (GOLDEN / "timings.md").read_text(encoding="utf-8")


def test_what_the_photos_were_used_for_is_counted(mine: Results) -> None:
    text = results_markdown([mine], "gan", VERSIONS)
    assert re.search(r"48 photos\D* 40 \D* 8 \D* 2 \(grey\), 1 \(cut short\)", text)


def test_the_papers_values_stand_beside_ours(mine: Results) -> None:
    rows = rows_under(results_markdown([mine], "gan", VERSIONS), "mine", "Beside the paper")
    ours = {(row[0], row[1]): row for row in rows}
    assert list(ours) == [(split, model) for split in ("test", "train") for model in ("grey", "L1", "GAN", "WGAN")]
    for line in PAPER_TABLE.strip().splitlines():
        split, model, fid, psnr, ssim, inception_score = cells(line)
        row = ours.pop((split, model))
        assert row[7] == f"{mine.score(split, model.lower())['fid64']:.3f}"  # the paper's FID has 64 features
        assert [row[4], row[6], row[8], row[10]] == [psnr, ssim, fid, inception_score]
    assert all([row[4], row[6], row[8], row[10]] == [""] * 4 for row in ours.values())  # the paper has no grey


def test_what_was_not_measured_stays_empty_and_has_a_reason(sample: Results, mine: Results) -> None:
    text = results_markdown([sample, mine], "gan", VERSIONS)
    assert all([row[7], row[9]] == ["", ""] for row in rows_under(text, "sample", "Beside the paper"))
    assert f"**Not measured: FID, FID-64, KID x1000, IS.** Reason: {REASON}." in text
    text = results_markdown([mine], "gan", VERSIONS)
    assert "Not measured" not in text
    assert "IS is empty" in text  # 8 test photos
    assert text.count(REASON) == 0


def test_dvcs_plots_show_metrics_under_their_labels() -> None:
    tree = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())
    plots = [plot for entry in tree["plots"] if isinstance(entry, dict) for plot in entry.values() if plot]
    shown = {plot["x"]["reports/results.csv"]: plot["x_label"] for plot in plots if isinstance(plot["x"], dict)}
    assert shown == {name: METRICS[name].heading.rstrip(" ↑↓") for name in shown} != {}
    assert all(METRICS[name].scale == 1 for name in shown)  # DVC plots what is stored


def test_a_new_metric_is_in_every_table_and_figure(mine: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = SetMetric(
        name="toy", label="Toy x10", better="truth", digits=".1f", scale=10, headline=True, features="", compute=len
    )
    before = bars(mine.scores)
    monkeypatch.setitem(METRICS, "toy", toy)
    mine.scores[["toy", "toy_std", "toy_true"]] = (1.25, 0.5, 2.0)
    text = results_markdown([mine], "gan", VERSIONS)
    assert [row[-2:] for row in rows_under(text, "mine", "Beyond the paper")] == [["12.5 ± 5.0", "20.0"]] * 8
    assert text.split("## mine")[0].count("12.5 (true 20.0)") == 2
    assert headline([mine], "gan")["mine.test.toy"] == 1.25
    assert bars(mine.scores).tobytes() != before.tobytes()


def test_the_sample_and_few_photos_have_a_warning(sample: Results, mine: Results) -> None:
    few = f"> **`mine` has few test photos, {mine.score('test', 'gan')['photos']}.**"
    both = results_markdown([mine, sample], "gan", VERSIONS)
    assert re.search(r"\[!CAUTION\][^!]* 48 [^!]* 12 ", both)
    assert few in both
    assert "`sample` has few" not in both
    mine.scores["photos"] = 50
    many = results_markdown([mine], "gan", VERSIONS)
    assert few not in many
    assert "[!CAUTION]" not in many


def test_the_report_holds_no_path_of_the_machine(mine: Results, out: Path) -> None:
    write([mine], "gan", out)
    for name, content in contents(out).items():
        assert b"/home/me" not in content, name


def test_a_score_that_is_infinite(sample: Results, out: Path) -> None:
    sample.scores["psnr"] = np.inf
    write([sample], "gan", out)
    assert "| inf [21.70, 22.50] |" in (out / "results.md").read_text()
    assert json.loads((out / "results.json").read_text())["datasets"]["sample"]["scores"][0]["psnr"] is None
    assert "sample.test.psnr" not in json.loads((out / "metrics.json").read_text())


@pytest.mark.parametrize(("loss", "psnr"), [("gan", 22.1), ("wgan", 20.4)])
def test_metrics_are_flat_and_of_the_headlines_model(sample: Results, mine: Results, loss: str, psnr: float) -> None:
    metrics = headline([sample, mine], loss)
    of_sample = [*(metric.name for metric in image_metrics_in_use()), "fd_lite0", "kid_lite0"]
    expected = {f"sample.{split}.{name}" for split in ("test", "train") for name in of_sample}
    expected |= {f"mine.{split}.{name}" for split in ("test", "train") for name in METRICS}
    assert set(metrics) == expected
    assert metrics["sample.test.psnr"] == metrics["mine.test.psnr"] == psnr
    assert all(type(value) is float for value in metrics.values())


def test_the_headline_follows_loss(sample: Results) -> None:
    text = results_markdown([sample], "wgan", VERSIONS)
    assert text.startswith("# Results\n\n## Headline: WGAN\n")
    assert "| sample | **WGAN** | 8 | 20.40 [20.00, 20.80] |" in text
    assert "| sample | grey | 8 | 22.60 [22.20, 23.00] |" in text, "grey stands beside it"


@pytest.mark.usefixtures("blank_charts")
def test_every_file_of_the_report(sample: Results, mine: Results, out: Path) -> None:
    write([sample, mine], "gan", out)
    grids = ("extremes", "test", "train")
    figures = [f"{dataset}-{name}" for dataset in ("mine", "sample") for name in ("curves", "scores", "tradeoff")]
    figures += [
        f"{dataset}-{model}-{grid}" for dataset in ("mine", "sample") for model in ("gan", "wgan") for grid in grids
    ]
    figures += [f"mine-l1-{grid}" for grid in grids]
    texts = ["history.csv", "metrics.json", "results.csv", "results.json", "results.md", "timings.md"]
    names = [f"figures/{figure}.png" for figure in figures]
    assert sorted(contents(out)) == sorted(names + texts)
    markdown = (out / "results.md").read_text()
    assert all(markdown.count(f"({name})") == 1 for name in names), "each figure is shown, once"


@pytest.mark.usefixtures("blank_charts")
def test_tables_for_programs_hold_every_row_as_it_was_measured(sample: Results, mine: Results, out: Path) -> None:
    write([sample, mine], "gan", out)
    table = pd.read_csv(out / "results.csv")
    assert list(table.columns[:3]) == ["dataset", "model", "split"]
    assert len(table) == 6 + 8  # the sample has no pretrained model
    row = table[(table["dataset"] == "mine") & (table["model"] == "wgan") & (table["split"] == "train")].iloc[0]
    assert (row["psnr"], row["ssim_high"], row["fid64"], row["photos"]) == (21.0, 0.91, 0.054, 40)
    assert table[table["dataset"] == "sample"]["fid"].isna().all()
    history = pd.read_csv(out / "history.csv")
    assert history.groupby(["dataset", "model"]).size().to_dict() == {
        (dataset, model): 2 for dataset in ("mine", "sample") for model in ("gan", "wgan")
    } | {("mine", "l1"): 2}
    everything = json.loads((out / "results.json").read_text())
    assert everything["datasets"]["mine"]["counts"] == {
        "used": 48, "groups": 48, "test_groups": 8, "train": 40, "test": 8, "rejected": {"grey": 2, "cut short": 1},
    }  # fmt: skip
    assert everything["datasets"]["sample"]["scores"][0]["fid"] is None
    assert everything["datasets"]["mine"]["notes"] == {"inception": None, "device": "cpu"}  # no checksums of weights


@pytest.mark.usefixtures("blank_charts")
def test_a_grid_shows_the_photos_of_its_model_and_split(sample: Results, out: Path) -> None:
    write([sample], "gan", out)
    for model, split in (("gan", "test"), ("wgan", "train")):
        wanted = sample.examples.query("model == @model and split == @split and kind == 'fixed'")["index"]
        grid = np.asarray(Image.open(out / "figures" / f"sample-{model}-{split}.png"))
        left = grid.shape[1] - 3 * 16 - 2 * 2
        for row, offset in enumerate((0, 60, 120)):
            middles = [grid[row * 18 + 8, left + column * 18 + 8, 0] for column in range(3)]
            assert middles == [index + offset for index in wanted]


@pytest.mark.usefixtures("blank_charts")
def test_extremes_are_the_best_and_then_the_worst_of_the_test_split(sample: Results, out: Path) -> None:
    write([sample], "gan", out)
    examples = sample.examples.query("model == 'wgan' and split == 'test'")
    best, worst = (examples[examples["kind"] == kind]["index"].iloc[0] for kind in ("best", "worst"))
    sheet = np.asarray(Image.open(out / "figures" / "sample-wgan-extremes.png"))
    left = sheet.shape[1] - 2 * 16 - 2
    assert [sheet[8, left + 8, 0], sheet[8, left + 18 + 8, 0]] == [best, worst]


def test_a_rerun_writes_the_same_bytes(mine: Results, out: Path) -> None:
    write([mine], "gan", out)
    first = contents(out)
    write([mine], "gan", out)
    assert contents(out) == first
    for path in (out / "figures").iterdir():
        assert not Image.open(path).info, f"{path.name} carries a date or a program's name"


@pytest.mark.usefixtures("blank_charts")
def test_a_dataset_that_is_gone_leaves_nothing_behind(sample: Results, mine: Results, out: Path) -> None:
    (out / "metrics").mkdir()
    (out / "metrics" / "kept.csv").write_text("evaluate's own")
    write([sample, mine], "gan", out)
    write([sample], "gan", out)
    after = contents(out)
    assert after.pop("metrics/kept.csv") == b"evaluate's own"
    assert not [name for name in after if "mine" in name]
    for name in ("results.md", "results.json", "results.csv", "metrics.json", "history.csv", "timings.md"):
        assert b"mine" not in after[name], name


@pytest.mark.usefixtures("blank_charts")
def test_a_failure_leaves_the_report_before_it(
    sample: Results, mine: Results, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write([sample], "gan", out)
    before = contents(out)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(report, "curves", fail)
        with pytest.raises(OSError, match="disk full"):
            write([mine], "wgan", out)
    after = {name: content for name, content in contents(out).items() if not name.startswith(".new/")}
    assert after == before
    write([sample], "gan", out)
    assert contents(out) == before, "what the failure left is cleared away"


def test_a_full_disk_is_a_line_and_leaves_the_report_before_it(sample: Results, small_disk: Path) -> None:
    write([sample], "gan", small_disk)
    before = {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()}
    with (small_disk / "other").open("wb", buffering=0) as other, contextlib.suppress(OSError):
        while True:
            other.write(bytes(4096))
    os.truncate(small_disk / "other", (small_disk / "other").stat().st_size - 40_000)
    with pytest.raises(
        DiskFull,
        match=r"the report .* 0\.\d+ MB .*disk .* 0\.\d+ MB",
    ):
        write([sample], "wgan", small_disk)
    (small_disk / "other").unlink()
    assert {path: path.read_bytes() for path in small_disk.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("blank_charts")
def test_the_stage_reports_the_datasets_and_the_loss_of_the_params(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample: Results, mine: Results, set_param: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    report_stage()
    assert "sample.test.psnr" in json.loads((paths.REPORTS / "metrics.json").read_text())
    set_param("datasets", ["mine"])
    set_param("loss", "wgan")
    report_stage()
    assert json.loads((paths.REPORTS / "metrics.json").read_text())["mine.test.psnr"] == 20.4
    assert [path.name for path in (paths.REPORTS / "figures").iterdir() if "sample" in path.name] == []
    assert (paths.metrics("sample") / "scores.csv").is_file(), "evaluate's own files are not the report's to remove"
    set_param("loss", "lsgan")
    with pytest.raises(UserError, match="loss: got 'lsgan'"):
        report_stage()
