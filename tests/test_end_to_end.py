"""The commands that users run, in a clone of the repository, on a tiny folder of photos.

The recipe is the modern one, which has a pretraining and a balance too; `make repro` runs the paper's. The tests share the
clone and depend on their order.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from clone import contents, dvc, git, make_clone, set_params, stages_run, write_photos
from networks import SMALL_PRETRAINED
from PIL import Image
from ruamel.yaml import YAML
from surroundings import ROOT

from recolor.models.folder import read_card
from recolor.models.objectives import ADVERSARIAL, MODELS

TRAININGS = ("pretrain", *(f"train_{name}" for name in ADVERSARIAL))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    folder = make_clone(tmp_path_factory.mktemp("clone"), photos)
    generator = SMALL_PRETRAINED.model_copy(update={"encoder_weights": "auto", "ab_scale": 0.25})
    settings = {"modern.generator": generator.model_dump(mode="json"), "modern.pretrain.epochs": 1}
    set_params(folder, {"recipe": "modern", **settings})
    git(folder, "commit", "--quiet", "--all", "--message=The modern recipe")
    return folder


def test_repro_goes_from_photos_to_the_report(clone: Path, photos: Path) -> None:
    before = contents(photos)
    printed = dvc(clone, "repro")
    assert stages_run(printed) == [
        *("check", "download@mine", "preprocess@mine", "check_batch_size@mine"),
        *(f"{stage}@mine" for stage in (*TRAININGS, "evaluate")),
        "report",
    ]
    assert contents(photos) == before

    manifest = pd.read_csv(clone / "data/cache/mine/manifest.csv")
    assert manifest["split"].value_counts().to_dict() == {"train": 14, "test": 2}  # round(0.85 * 16) of them
    rejected = pd.read_csv(clone / "data/cache/mine/rejected.csv").set_index("path")["reason"]
    assert set(rejected.index) == {"copy.png", "grey.png", "text.jpg"}
    assert rejected["copy.png"] == "duplicate of 03.png"

    card = read_card(clone / "data/models/mine/wgan")
    assert (card["dataset"], card["model"], card["photos"], card["epochs"]) == ("mine", "wgan", 14, 2)
    assert card["versions"] == {name: version(name) for name in ("recolor", "torch", "timm")}
    scores = pd.read_csv(clone / "reports/results.csv")
    assert list(scores["model"]) == list(MODELS) * 2
    assert scores["psnr"].between(3, 60).all()
    assert scores["kid_lite0"].notna().any()
    history = pd.read_csv(clone / "reports/history.csv")
    ratios = history[history["model"] == "gan"]["gradient_ratio"]
    assert list(ratios) == pytest.approx([1, 1], rel=1e-3)  # the balance that was asked for
    assert list((clone / "data/samples/mine/gan").glob("*.png"))
    report = (clone / "reports/results.md").read_text()
    assert "## Headline: GAN" in report
    assert "Recipe: `modern`" in report
    for line in report.splitlines():
        if line.startswith("!["):
            figure = clone / "reports" / line.split("(")[-1].rstrip(")")
            assert Image.open(figure).size[0] > 2 * 32


def test_dvcs_plots_show_curves_bars_and_grids(clone: Path) -> None:
    dvc(clone, "plots", "show", "--out", "dvc_plots")
    page = (clone / "dvc_plots" / "index.html").read_text()
    drawn = [json.loads(spec) for spec in re.findall(r"var spec = ({.*});", page)]
    entries = [entry for entry in YAML(typ="safe").load(clone / "dvc.yaml")["plots"] if isinstance(entry, dict)]
    wanted = {title: plot for entry in entries for title, plot in entry.items()}
    live = [wanted.pop("data/live")["title"]] * len(list((clone / "data/live").glob("*/*.csv")))
    assert live
    assert sorted(plot["title"]["text"] for plot in drawn) == sorted([*wanted, *live])
    for title, setting in wanted.items():
        (plot,) = (plot for plot in drawn if plot["title"]["text"] == title)
        ((table, column),) = (setting["x"] if isinstance(setting["x"], dict) else setting["y"]).items()
        values = pd.to_numeric(pd.DataFrame(plot["data"]["values"])[column])
        assert list(values) == pytest.approx(list(pd.read_csv(clone / table)[column]), nan_ok=True)
    assert len(list((clone / "dvc_plots" / "static").glob("*.png"))) == len(list((clone / "reports/figures").iterdir()))


def test_nothing_changed_nothing_runs_and_nothing_is_left_for_git_but_results(clone: Path) -> None:
    assert stages_run(dvc(clone, "repro")) == []
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    assert {line[3:].split("/")[0] for line in status.splitlines()} == {"dvc.lock", "reports"}
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message=Results")


def test_a_clone_elsewhere_with_the_cache_pulled_reruns_nothing(clone: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "--quiet", str(clone), str(elsewhere))
    for folder, command in ((clone, "push"), (elsewhere, "pull")):
        dvc(folder, "remote", "add", "--local", "--default", "shared", str(tmp_path / "shared"))
        dvc(folder, command)
    assert stages_run(dvc(elsewhere, "repro")) == []
    for name in ("data/models", "reports"):
        own = {path: file for path, file in contents(clone / name).items() if not path.endswith(".lock")}
        assert contents(elsewhere / name) == own
    assert git(elsewhere, "status", "--porcelain") == ""


@pytest.mark.sweep
def test_run_again_by_force_every_byte_is_the_same(clone: Path) -> None:
    kept = [clone / "data/models", clone / "data/cache", clone / "reports"]
    before = [contents(folder) for folder in kept]
    assert len(stages_run(dvc(clone, "repro", "--force"))) == 9
    for folder, files in zip(kept, before, strict=True):
        after = contents(folder)
        assert set(after) == set(files)
        assert [name for name in files if files[name] != after[name]] in ([], ["timings.md"])


def test_the_other_headline_runs_the_report_alone_and_metrics_diff_shows_gan_against_wgan(clone: Path) -> None:
    before = json.loads((clone / "reports/metrics.json").read_text())
    printed = dvc(clone, "exp", "run", "-S", "loss=wgan")
    assert stages_run(printed) == ["check", "report"]
    assert "## Headline: WGAN" in (clone / "reports/results.md").read_text()
    after = json.loads((clone / "reports/metrics.json").read_text())

    rows = {}
    for line in dvc(clone, "metrics", "diff", "--md", "--precision", "17").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "reports/metrics.json":
            rows[cells[1]] = (float(cells[2]), float(cells[3]))
    assert rows == {name: (before[name], after[name]) for name in before if before[name] != after[name]}
    assert {"mine.test.psnr", "mine.test.ssim", "mine.test.colourfulness", "mine.train.psnr"} <= set(rows)


@contextmanager
def changed(clone: Path, values: dict[str, object]) -> Iterator[None]:
    """These settings within the block, and no output different after it."""
    kept = [clone / "data/raw", clone / "data/cache", clone / "data/models", clone / "reports"]
    before, settings = [contents(folder) for folder in kept], (clone / "params.yaml").read_text()
    set_params(clone, values)
    yield
    (clone / "params.yaml").write_text(settings)
    assert [contents(folder) for folder in kept] == before


@pytest.mark.parametrize(
    ("values", "runs"),
    [
        (
            {"overrides.mine": {"modern.train.epochs": 3}},
            {"check_batch_size@mine", *(f"{name}@mine" for name in TRAININGS)},
        ),
        ({"modern.train.seed": 7}, {f"{name}@mine" for name in TRAININGS}),
        ({"data.seed": 7}, {"download@mine", "preprocess@mine"}),
        ({"modern.gan.lr": 0.1}, {"check_batch_size@mine", "train_gan@mine"}),
        ({"modern.wgan.constraint": "clip"}, {"check_batch_size@mine", "train_wgan@mine"}),
        ({"paper.gan.lr": 0.1, "runtime.deterministic": True, "runtime.checkpoint_minutes": 1}, set()),
    ],
    ids=lambda value: ", ".join(sorted(value)) or "nothing",
)
def test_a_setting_runs_only_the_stages_that_it_decides(clone: Path, values: dict[str, object], runs: set[str]) -> None:
    """Dry, DVC names the stages whose own params have changed, and not those that follow them."""
    with changed(clone, values):
        found = set(stages_run(dvc(clone, "repro", "--dry")))
    early = {"check", "evaluate@mine", "report"}  # whose params or deps hold much more
    assert found - early == runs


def test_a_wrong_setting_is_one_line_and_touches_no_output(clone: Path) -> None:
    with changed(clone, {"data.mine.path": "/nonexistent"}):
        printed = dvc(clone, "repro", fails=True)
    (line,) = (text for text in printed.splitlines() if text.startswith("error: "))
    assert "data.mine.path: " in line
    assert "Traceback" not in printed


def test_a_changed_folder_is_picked_up_as_the_readme_says(clone: Path, photos: Path) -> None:
    # DVC's own git library may note the new time of a file that it did not restore, and git then believes it unchanged.
    git(clone, "read-tree", "HEAD")
    git(clone, "checkout", "HEAD", ".")
    dvc(clone, "checkout")
    (photos / "text.jpg").unlink()
    assert stages_run(dvc(clone, "repro")) == []  # DVC does not look into a folder that is not its own,
    assert "dvc repro -f -s download@mine && dvc repro" in (ROOT / "README.md").read_text()
    assert stages_run(dvc(clone, "repro", "-f", "-s", "download@mine")) == ["download@mine"]
    assert stages_run(dvc(clone, "repro", "preprocess")) == ["preprocess@mine"]
    assert "text.jpg" not in (clone / "data/cache/mine/rejected.csv").read_text()
    # Only rejected.csv has changed, but that is part of the cache.
    after = {"check_batch_size@mine", *(f"{name}@mine" for name in TRAININGS), "evaluate@mine", "report"}
    assert set(stages_run(dvc(clone, "repro", "--dry"))) == after
