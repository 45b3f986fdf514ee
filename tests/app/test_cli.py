"""`recolor` as people type it, in a repository with trained models and outside of one."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from unittest.mock import Mock

import battery
import numpy as np
import pytest
import typer
from commands import error, recolor
from PIL import Image
from tqdm import tqdm
from typer.testing import Result

from recolor.app import colorize
from recolor.app import repository as finding
from recolor.app.cli import app
from recolor.inference import colorizer
from recolor.models.folder import CARD, WEIGHTS, weights_sha256
from stages import paths

SHIPPED_HERE = Path("shipped")
COMMANDS = typer.main.get_command(app).commands


def used_model(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[0].split(" ")[1]


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, recolor.app.cli; "
    code += "print({'torch', 'numpy', 'pandas', 'PIL', 'dvc', 'tqdm', 'skimage', 'rich'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_every_text_in_full(name: str) -> None:
    """Markup would swallow what stands in square brackets."""
    shown = squeezed(recolor(name, "--help").stdout)
    command = COMMANDS[name]
    assert squeezed(command.help) in shown
    texts = [parameter.help for parameter in command.params if getattr(parameter, "help", None)]
    assert [text for text in texts if squeezed(text) not in shown] == []


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "recolor", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"recolor {version('recolor')}\n"


def test_without_a_name_own_photos_models_come_first_and_the_samples_last(repository: Path, set_param) -> None:
    assert used_model(recolor("colorize", "photo.jpg")) == "data/models/mine/gan"
    assert Image.open("photo-recolor.jpg").size == battery.SIZE
    set_param("loss", "wgan")
    assert used_model(recolor("colorize", "photo.jpg", "--force")) == "data/models/new/wgan"
    set_param("loss", "gan")
    for dataset in ("mine", "old"):
        shutil.rmtree(paths.model(dataset, "gan"))
    assert used_model(recolor("colorize", "photo.jpg", "--force")) == "data/models/sample/gan"
    shutil.copytree(paths.model("sample", "gan"), SHIPPED_HERE / "default")
    assert used_model(recolor("colorize", "photo.jpg", "--force")) == str(Path.cwd() / SHIPPED_HERE / "default")


def test_models_are_found_newest_first(empty_repository: Path) -> None:
    assert finding.trained_models() == []
    names = ["b/gan", "a/wgan", "a/gan"]
    for age, name in enumerate(names):
        card = Path("data/models", name, CARD)
        card.parent.mkdir(parents=True)
        card.write_text("{}")
        os.utime(card, (1000 - age, 1000 - age))
    Path("data/models/a/empty").mkdir()
    assert finding.trained_models() == [Path("data/models", name) for name in names]


def test_the_model_that_comes_with_recolor_needs_no_repository(repository: Path, tmp_path: Path) -> None:
    shutil.copytree(paths.model("mine", "gan"), SHIPPED_HERE / "default")
    first = next(line for line in recolor("models").stdout.splitlines() if ": " in line)
    assert first.split(":")[0] == "  default"
    assert used_model(recolor("colorize", "photo.jpg", "-m", "default")) == str(Path.cwd() / SHIPPED_HERE / "default")
    for needed in ("params.yaml", "dvc.yaml"):
        (tmp_path / needed).unlink()
    assert recolor("models").stdout.startswith("* default:")
    assert used_model(recolor("colorize", "photo.jpg", "--force")) == str(Path.cwd() / SHIPPED_HERE / "default")


def test_the_repository_is_found_from_any_folder(repository: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    shutil.move("photo.jpg", "a/b/photo.jpg")
    monkeypatch.chdir("a/b")
    assert used_model(recolor("colorize", "photo.jpg")) == "../../data/models/mine/gan"
    assert used_model(recolor("colorize", "photo.jpg", "--force", "-m", "old/gan")) == "../../data/models/old/gan"

    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    shutil.copy("photo.jpg", outside)
    monkeypatch.chdir(outside)
    message = error(recolor("colorize", "photo.jpg"))
    assert str(outside) in message
    assert str(tmp_path / "nowhere") in message
    monkeypatch.setattr(finding, "_installed_from", lambda: tmp_path)
    assert used_model(recolor("colorize", "photo.jpg")) == str(tmp_path / "data/models/mine/gan")


def test_colorize_follows_its_options(repository: Path) -> None:
    result = recolor(
        *("colorize", "photo.jpg", "-o", "out.png", "--model", "old/gan", "--side-by-side", "--size", 64),
        *("--upsampling", "bicubic", "--strength", 0, "--device", "cpu"),
    )
    assert used_model(result) == "data/models/old/gan"
    both = np.asarray(Image.open("out.png")).astype(int)
    assert both.shape == (battery.SIZE[1], 2 * battery.SIZE[0], 3)
    assert np.ptp(both[:, battery.SIZE[0] :], axis=2).max() <= 1  # grey


def test_a_stopped_run_continues(repository: Path) -> None:
    battery.picture(1).save("other.jpg")
    assert recolor("colorize", "photo.jpg").exit_code == 0
    before = Path("photo-recolor.jpg").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colorize, "_photos", Mock(side_effect=KeyboardInterrupt))
        stopped = recolor("colorize", "photo.jpg", "other.jpg")
        forced = recolor("colorize", "photo.jpg", "other.jpg", "--force")  # begins again, with --skip-existing too
    assert (stopped.exit_code, "--skip-existing" in stopped.stderr) == (130, True)
    assert (forced.exit_code, "--skip-existing" in forced.stderr) == (130, False)
    assert recolor("colorize", "photo.jpg", "other.jpg").exit_code == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(colorizer.Colorizer, "load", Mock(side_effect=AssertionError))  # needed for no photo
        result = recolor("colorize", "photo.jpg", "other.jpg", "--skip-existing")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "0 coloured, 2 skipped")
    Path("other-recolor.jpg").unlink()
    result = recolor("colorize", "photo.jpg", "other.jpg", "--skip-existing")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "1 coloured, 1 skipped")
    assert Path("photo-recolor.jpg").read_bytes() == before


def test_the_bar_moves_within_a_large_photo_and_not_within_a_small_one(repository: Path, monkeypatch) -> None:
    postfix, update = Mock(), Mock()
    monkeypatch.setattr(tqdm, "set_postfix_str", postfix)
    monkeypatch.setattr(tqdm, "update", update)
    monkeypatch.setattr(colorize, "LARGE", 100 * 100)
    monkeypatch.setattr(colorizer, "STRIP", 1000)
    battery.picture(0, (200, 150)).save("large.png")
    assert recolor("colorize", "photo.jpg", "large.png").exit_code == 0
    shown = [call.args[0].split(": ") for call in postfix.call_args_list]
    assert {name for name, _ in shown} == {"large.png"}
    shares = [int(state.split()[1].rstrip("%")) for _, state in shown if "%" in state]
    assert shares == sorted(shares)
    assert (len(set(shares)) > 10, shares[-1]) == (True, 100)
    assert update.call_count == 2


def test_every_file_that_is_no_photo_is_named_and_results_only_counted(repository: Path, monkeypatch) -> None:
    monkeypatch.setattr(colorize, "SKIPPED_SHOWN", 1)
    Path("folder").mkdir()
    for number in range(3):
        battery.picture(number).save(f"folder/{number}.png")
        Path(f"folder/{number}.txt").write_text("not a photo")
    assert recolor("colorize", "folder", "-o", "out").exit_code == 0
    lines = recolor("colorize", "folder", "-o", "out", "--skip-existing").stderr.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        *(f"folder/{number}.txt" for number in range(3)), "folder/0.png", "2 more whose result exists already"
    ]  # fmt: skip


def test_failures_are_named_and_the_others_done(repository: Path) -> None:
    Path("folder").mkdir()
    Path("folder/notes").write_text("not a photo")
    Path("text.jpg").write_text("not a photo")
    battery.picture(0).save("pages.tif", save_all=True, append_images=[battery.picture(1)])
    result = recolor("colorize", "text.jpg", "photo.jpg", "folder", "missing.png", "pages.tif", "-o", "out")
    assert result.exit_code == 1
    assert [line.split(" (")[0] for line in result.stdout.splitlines()[1:]] == [
        "photo.jpg -> out/photo-recolor.jpg",
        "pages.tif -> out/pages-recolor.tif",
        "2 coloured, 3 failed, 1 skipped",
    ]
    assert [line.split(": ")[:2] for line in result.stderr.splitlines()] == [
        ["skipped", "folder/notes"],
        ["error", "folder"],
        ["error", "text.jpg"],
        ["error", "missing.png"],
    ]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--model", "nowhere"], "nowhere"),
        (["--model", "."], "."),
        (["--model", "model.onnx"], "model.onnx"),
        (["--size", "40"], "size"),
        (["--strength", "inf"], "strength"),
        (["--device", "cuda:99"], "device"),
        (["--device", "tpu"], "device"),
        (["-o", "out.gif"], "out.gif"),
        (["-o", "out.jp2"], "out.jp2"),
        (["-o", "out.heic"], "out.heic"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(repository: Path, arguments: list[str], found: str) -> None:
    Path("model.onnx").touch()
    assert found in error(recolor("colorize", "photo.jpg", *arguments)).split(": ")[0]
    assert {path.name for path in repository.glob("out*")} == set()


def test_a_wrong_model_names_those_that_there_are(repository: Path) -> None:
    known = error(recolor("colorize", "photo.jpg", "--model", "nowhere")).rpartition(": ")[2].split(", ")
    assert {"sample/gan", "mine/gan"} <= set(known)
    for name in known:
        assert recolor("colorize", "photo.jpg", "--model", name, "--force").exit_code == 0


def test_a_damaged_model_is_one_line(repository: Path) -> None:
    (paths.model("mine", "gan") / WEIGHTS).write_bytes(b"\0" * 100)
    assert str(paths.model("mine", "gan") / WEIGHTS) in error(recolor("colorize", "photo.jpg"))


def test_without_models_the_ways_to_one_are_named(empty_repository: Path) -> None:
    for command in (["models"], ["colorize", "photo.jpg"]):
        message = error(recolor(*command))
        assert str(paths.model("", "")) in message
        assert "recolor train" in message
        assert "--model" in message


def test_models_are_listed_with_their_test_scores(repository: Path) -> None:
    table = paths.metrics("mine") / "scores.csv"
    table.parent.mkdir(parents=True)
    table.write_text(
        "split,model,photos,psnr,fid\ntest,grey,6,22.5,\ntest,gan,6,21.0,\ntrain,grey,34,23.0,\ntrain,gan,34,24.0,\n"
    )
    evaluated = {"gan": weights_sha256(paths.model("mine", "gan"))}
    (table.parent / "notes.json").write_text(json.dumps({"models": evaluated}))
    damaged = paths.model("old", "gan") / "model.json"
    damaged.write_text("{")
    os.utime(damaged, (0, 0))
    (paths.model("mine", "gan") / "history.csv").write_text("epoch,generator_steps\n1,3\n")
    result = recolor("models")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines if ": " in line and not line.startswith("    ")] == [
        "  sample/gan", "  new/wgan", "* mine/gan", "  mine/wgan", f"  {damaged}"
    ]  # fmt: skip
    [scores] = [line for line in lines if "PSNR" in line]
    assert lines.index(scores) == 1 + next(number for number, line in enumerate(lines) if line.startswith("*"))
    assert {"N 6", "PSNR 21.00 dB"} == set(scores.strip().split(", "))
    code = "import sys; sys.modules['pandas'] = None; from recolor.app.cli import app; app(['models'])"
    bare = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # the base installation
    assert scores in bare.stdout.splitlines(), bare.stderr


def test_the_gallery_names_the_extra_that_it_needs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "recolor[pipeline]" in error(recolor("gallery", "sample"))


def test_an_exported_model_colours_like_the_original(repository: Path) -> None:
    assert recolor("export", "mine/gan", "-o", "bundle").exit_code == 0
    assert recolor("colorize", "photo.jpg", "-o", "a.png").exit_code == 0
    shutil.rmtree("data")
    assert recolor("colorize", "photo.jpg", "-o", "b.png", "-m", "bundle").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    assert "bundle" in error(recolor("export", "bundle", "-o", "bundle"))


def test_float16_weights_take_half_the_bytes(tmp_path: Path) -> None:
    full, half = tmp_path / "full", tmp_path / "half"
    assert recolor("export", "cautious", "-o", str(full)).exit_code == 0
    assert recolor("export", "cautious", "-o", str(half), "--float16").exit_code == 0
    assert (half / WEIGHTS).stat().st_size < 0.6 * (full / WEIGHTS).stat().st_size


def test_the_average_of_a_model_with_itself_is_that_model(models, tmp_path: Path) -> None:
    model, out = models["tiny/gan"], tmp_path / "average"
    command = ("average", str(model), str(model), "-o", str(out))
    assert recolor(*command).exit_code == 0
    assert (out / WEIGHTS).read_bytes() == (model / WEIGHTS).read_bytes()
    assert "--force" in error(recolor(*command))
    assert recolor(*command, "--force").exit_code == 0


def test_gallery_names_the_datasets_that_there_are(repository: Path) -> None:
    for name in ("coco", "mine"):
        paths.metrics(name).mkdir(parents=True)
    assert "coco, mine" in error(recolor("gallery", "coca"))
