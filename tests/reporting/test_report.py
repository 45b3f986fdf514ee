"""The report's files, from small made-up results."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from clone import contents
from PIL import Image

from recolor.core.errors import UserError
from recolor.core.storage import DiskFull
from recolor.evaluation.metrics import METRICS, image_metrics
from recolor.reporting import report
from recolor.reporting.report import headline, write
from recolor.reporting.results import Results
from stages import paths
from stages.report import main as report_stage


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
    of_sample = [*(metric.name for metric in image_metrics()), "fd_lite0", "kid_lite0"]
    expected = {f"sample.{split}.{name}" for split in ("test", "train") for name in of_sample}
    expected |= {f"mine.{split}.{name}" for split in ("test", "train") for name in METRICS}
    assert set(metrics) == expected
    assert metrics["sample.test.psnr"] == metrics["mine.test.psnr"] == psnr
    assert all(type(value) is float for value in metrics.values())


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
def test_the_folder_keeps_its_permissions(sample: Results, out: Path) -> None:
    out.chmod(0o770)
    write([sample], "gan", out)
    assert out.stat().st_mode & 0o777 == 0o770


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
