"""The gallery, opened from disk in a browser: its order is that of the scores, its pictures are those of the models."""

import json
import os
import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from browser import listen
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from surroundings import ROOT
from typer.testing import CliRunner, Result

from recolor.app import cli
from recolor.core.errors import UserError
from recolor.dataset.shards import CachedPhotos
from recolor.evaluation.evaluate import EvaluateParams, evaluate
from recolor.evaluation.image_metrics import psnr
from recolor.images.color import into_gamut, lab_to_rgb
from recolor.models.folder import load_generator, save_generator
from recolor.models.objectives import ADVERSARIAL
from recolor.models.unet import UNetGenerator, UNetParams
from recolor.preprocessing.build import CacheParams, build
from recolor.reporting.gallery import write_gallery
from recolor.runtime.context import RuntimeParams
from recolor.sources.listing import listing_of
from stages import paths

ODD = "a <b>bold 'name' & more.png"  # what a page must not read as its own markup


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ten photos have been cached, and two untrained models saved and evaluated, as the pipeline does."""
    folder, rng = tmp_path_factory.mktemp("made"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in ("params.yaml", "dvc.yaml"):  # which make a repository
        (folder / name).write_text((ROOT / name).read_text())
    names = [ODD, *(f"{number}.png" for number in range(9))]
    for name in names:
        colours = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((32, 32), Image.Resampling.BICUBIC).save(folder / "photos" / name)
    params = CacheParams(seed=0, size=32, train_fraction=0.1, min_chroma=0)
    listing = listing_of(folder / "photos", names)
    build(listing, folder / "photos", folder / paths.cache("tiny"), params, processes=1)
    models = {name: folder / paths.model("tiny", name) for name in ADVERSARIAL}
    for seed, model in enumerate(models.values()):
        save(model, seed)
    score(folder)
    return folder


def save(model: Path, seed: int) -> None:
    """Writes the folder of an untrained model, another for each seed."""
    torch.manual_seed(seed)
    generator = UNetGenerator(UNetParams(kind="unet", filters=2, downs=5, dropout=0.5))
    for parameter in generator.parameters():
        parameter.data *= 10
    save_generator(model, generator, {})


def score(folder: Path) -> None:
    settings = EvaluateParams(batch_size=4, inception="off", inception_weights=None, bootstrap=100, examples=1)
    models = {name: folder / paths.model("tiny", name) for name in ADVERSARIAL}
    evaluate(
        folder / paths.cache("tiny"),
        models,
        folder / paths.metrics("tiny"),
        settings,
        RuntimeParams(device="cpu"),
        seed=0,
    )


@pytest.fixture(scope="module")
def gallery(made: Path) -> Path:
    """Made by the command, with no options but the dataset."""
    before = Path.cwd()
    os.chdir(made)
    try:
        result = CliRunner().invoke(cli.app, ["gallery", "tiny"])
    finally:
        os.chdir(before)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("9 photos: data/gallery/tiny/index.html")
    return made / "data/gallery/tiny"


@pytest.fixture
def page(browser: Browser, gallery: Path) -> Page:
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.set_default_timeout(60_000)
    return page


def scores(made: Path) -> pd.DataFrame:
    """The sort keys of the page, from photos.csv: a column for each key, indexed by the photo's name."""
    table = pd.read_csv(made / paths.metrics("tiny") / "photos.csv")
    table = table[table["split"] == "test"]
    gan, wgan, grey = (table[table["model"] == name].set_index("path") for name in ("gan", "wgan", "grey"))
    keys = {"Order of the split": gan["row"]}
    for label, name in (("PSNR", "psnr"), ("SSIM", "ssim"), ("colourfulness", "colourfulness")):
        columns = {"GAN": gan[name], "WGAN": wgan[name]}
        columns |= {"Truth": gan[f"{name}_true"]} if name == "colourfulness" else {"Input": grey[name]}
        keys |= {f"{label}: {column}": values for column, values in columns.items()}
        for one, other in combinations(columns, 2):
            keys[f"{label}: {one} - {other}"] = columns[one] - columns[other]
    return pd.DataFrame(keys)


def test_every_key_sorts_both_ways(page: Page, gallery: Path, made: Path) -> None:
    page.goto((gallery / "index.html").as_uri())
    expected = scores(made)
    assert page.locator("option").all_inner_texts() == list(expected.columns)
    names = page.locator("article h2 span")
    for key in expected.columns:
        page.get_by_label("Sort by").select_option(key)
        lowest_first = list(expected[key].sort_values().index)
        assert names.all_inner_texts() == lowest_first
        page.get_by_role("button", name="lowest first").click()
        assert names.all_inner_texts() == lowest_first[::-1]
        page.get_by_role("button", name="highest first").click()
    name = expected["PSNR: Input"].index[3]
    caption = page.get_by_role("article", name=name).locator("figcaption").first.inner_text()
    assert caption.startswith(f"Input PSNR {expected.loc[name, 'PSNR: Input']:.2f} dB, SSIM")
    expect(page.locator("article output").first).to_have_text(f"{key}: {expected[key].min():.2f}")


def test_it_opens_from_disk_and_asks_for_nothing_but_its_pictures(page: Page, gallery: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(gallery, tmp_path / "somewhere else")
    asked, errors = listen(page)
    page.goto((moved / "index.html").as_uri())
    pictures = page.locator("article img")
    assert pictures.count() == 9 * 4
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("picture => picture.naturalWidth") == 32
    assert {url for url in asked if not url.startswith(moved.as_uri())} == set()
    assert errors == []
    assert page.locator("article b", has_text="bold").count() == 0
    assert page.get_by_text(ODD).count() == 1


def test_the_keyboard_goes_through_versions_and_photos(page: Page, gallery: Path) -> None:
    page.goto((gallery / "index.html").as_uri())
    page.locator("figure button").first.focus()
    page.keyboard.press("Enter")
    large, first = page.locator("dialog img"), page.locator("article").first.get_attribute("aria-label")
    seen = [large.get_attribute("alt")]
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
        seen.append(large.get_attribute("alt"))
    second = page.locator("article").nth(1).get_attribute("aria-label")
    versions = [f"{name} of {first}" for name in ("Input", "GAN", "WGAN", "Truth", "Input")]
    assert seen == [*versions, f"Input of {second}", f"Input of {first}"]
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()


def test_pictures_are_the_models_and_their_psnr_is_what_is_written(gallery: Path, made: Path) -> None:
    photos = CachedPhotos(made / paths.cache("tiny"), "test")
    lab = photos[[4]]
    with torch.inference_mode():
        ab = load_generator(made / paths.model("tiny", "wgan"))(lab[:, :1])
        output = lab_to_rgb(into_gamut(torch.cat([lab[:, :1], ab], dim=1)))
    written = np.array(Image.open(gallery / "pictures" / "00004-wgan.jpg")).astype(int)
    assert np.abs(written - output[0].permute(1, 2, 0).numpy()).mean() < 4  # JPEG
    name = photos.manifest["path"][4]
    measured = psnr(output, lab_to_rgb(lab)).item()
    assert scores(made).loc[name, "PSNR: WGAN"] == pytest.approx(measured, abs=0.01)


def test_a_limit_shows_photos_from_all_over_the_split_and_replaces_what_was_there(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "gallery"
    for limit, rows in ((100, list(range(9))), (3, [0, 4, 8])):
        assert write(made, out, limit) == len(rows)
        assert sorted(path.name for path in (out / "pictures").iterdir() if "truth" in path.name) == [
            f"{row:05d}-truth.jpg" for row in rows
        ]


def write(made: Path, out: Path, limit: int = 1) -> int:
    models = {name: made / paths.model("tiny", name) for name in ADVERSARIAL}
    return write_gallery(out, "tiny", made / paths.cache("tiny"), models, made / paths.metrics("tiny"), limit, "cpu")


def test_a_folder_with_anything_else_in_it_is_left_alone(made: Path, tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(UserError, match=str(tmp_path)):
        write(made, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_scores_of_other_photos_are_refused(made: Path, tmp_path: Path) -> None:
    other = shutil.copytree(made, tmp_path / "other")
    file = other / paths.metrics("tiny") / "photos.csv"
    table = pd.read_csv(file)
    table[table["row"] != 2].to_csv(file, index=False)
    with pytest.raises(UserError, match="gan"):
        write(other, tmp_path / "gallery")
    file.unlink()
    with pytest.raises(UserError, match=r"photos\.csv is missing: .*dvc repro"):
        write(other, tmp_path / "gallery")


def test_scores_of_the_model_that_was_there_before_are_neither_shown_nor_exported(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(made, tmp_path / "other", ignore=shutil.ignore_patterns("gallery"))
    monkeypatch.chdir(other)

    def recolor(*arguments: str) -> Result:
        return CliRunner().invoke(cli.app, list(arguments))

    def listed() -> dict[str, str]:
        lines = [line.strip().removeprefix("* ") for line in recolor("models").stdout.splitlines()]
        return {title.split(":")[0]: scored for title, scored in zip(lines[::2], lines[1::2], strict=True)}

    before = listed()
    assert all("PSNR" in scored for scored in before.values())
    save(paths.model("tiny", "gan"), seed=7)  # trained again
    stale = "not evaluated since it was trained; run `dvc repro`"
    assert listed() == {**before, "tiny/gan": f"data/models/tiny/gan: {stale}"}
    for command in (["export", "tiny/gan", "-o", "bundle"], ["gallery", "tiny"]):
        result = recolor(*command)
        assert (result.exit_code, result.stderr) == (1, f"error: data/models/tiny/gan: {stale}\n")
    assert not Path("bundle").exists()
    assert not Path("data/gallery").exists()
    assert recolor("export", "tiny/wgan", "-o", "bundle").exit_code == 0

    score(Path())
    assert listed()["tiny/gan"] != before["tiny/gan"]
    assert "PSNR" in listed()["tiny/gan"]
    assert recolor("export", "tiny/gan", "-o", "gan").exit_code == 0
    assert recolor("gallery", "tiny").exit_code == 0
    assert recolor("export", str(other / "data/models/tiny/gan"), "-o", "by-its-whole-path").exit_code == 0
    cards = [json.loads((Path(bundle) / "model.json").read_text()) for bundle in ("gan", "by-its-whole-path")]
    assert cards[0]["scores"] == cards[1]["scores"] != []

    (paths.model("tiny", "wgan") / "generator.safetensors").unlink()
    assert "cannot be read" in listed()["tiny/wgan"]  # and the other one is still listed
    (paths.metrics("tiny") / "notes.json").write_text("{")
    assert "notes.json" in listed()["tiny/gan"]
