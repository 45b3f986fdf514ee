"""The demo as somebody meets it: served on this machine, opened in a browser, with two untrained models."""

import base64
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import requests
from PIL import Image

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytest.importorskip("playwright", reason="the extra `dev` is not installed")

from browser import opened
from playwright.sync_api import Browser, Locator, Page, Route, expect
from surroundings import free_port

from recolor.app import demo
from recolor.images.color import rgb_to_lab

WAIT = 60_000  # milliseconds: for a busy machine


@pytest.fixture(scope="module")
def connections() -> Iterator[list[Any]]:
    """The addresses outside this machine that this process, the server's, turns to, and the names that it looks up."""
    outside: list[Any] = []
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def looked_up(host: Any, *arguments: Any, **settings: Any) -> Any:
        if host not in (None, "127.0.0.1", "::1", "localhost"):
            outside.append(host)
        return getaddrinfo(host, *arguments, **settings)

    def noted(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            outside.append(address)
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", noted)
        patch.setattr(socket, "getaddrinfo", looked_up)  # offline a name is as far as it gets
        yield outside


@pytest.fixture(scope="module")
def address(models: dict[str, Path], connections: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the demo is served, with limits that small files reach."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(demo, "MAX_MEGAPIXELS", 1)
        patch.setattr(demo, "MAX_MEGABYTES", 1)
        page = demo.build(models, demo.grey_examples(folder / "examples"), "cpu")
        yield demo.launch(page, "127.0.0.1", free_port())
        page.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address, WAIT) as page:
        yield page


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A colour photo of a size that is no square and no multiple of anything."""
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "my photo.png"
    Image.fromarray(colours).resize((301, 203), Image.Resampling.BICUBIC).save(path)
    return path


def upload(page: Page, photo: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(photo)


def downloaded(page: Page, folder: Path) -> Path:
    button = page.locator("#download")
    expect_download(button, enabled=True)
    with page.expect_download() as download:
        button.click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def expect_download(button: Locator, enabled: bool) -> None:
    """Waits until the button says so and can be clicked, or cannot."""
    expect(button).to_have_text(re.compile(r"^\s*Download\s*$"), timeout=WAIT)
    expect(button).to_be_enabled(enabled=enabled, timeout=WAIT)


def result_pictures(page: Page, count: int = 2) -> Locator:
    """The pictures before and after the line, once there are `count`."""
    pictures = page.locator("#result img")
    expect(pictures).to_have_count(count, timeout=WAIT)
    return pictures


def lab(path: Path) -> np.ndarray:
    return rgb_to_lab(np.array(Image.open(path).convert("RGB"))) * np.array([50, 110, 110])[:, None, None]


def loaded(pictures: Locator) -> list[str]:
    """The addresses of pictures, once the browser has their pixels."""
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True, timeout=WAIT)
        assert picture.evaluate("picture => picture.naturalWidth") > 0
    return [str(picture.get_attribute("src")) for picture in pictures.all()]


def test_a_photo_is_coloured_looked_at_and_taken_away(page: Page, photo: Path, tmp_path: Path) -> None:
    upload(page, photo)
    pictures = result_pictures(page)
    assert len(set(loaded(pictures))) == 2

    line = page.get_by_test_id("slider").locator(".inner")
    box = line.bounding_box()
    left = covered(pictures.nth(1))
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] - 150, box["y"] + box["height"] / 2, steps=3)
    page.mouse.up()
    assert covered(pictures.nth(1)) < left - 10

    path = downloaded(page, tmp_path / "downloads")
    assert path.name == "my photo-recolor.png"
    result, original = lab(path), lab(photo)
    assert result.shape == original.shape
    assert np.abs(result[0] - original[0]).max() < 0.6
    assert np.abs(result[1:]).mean() > 5


def covered(picture: Locator) -> float:
    """The share of a picture left of the line, in per cent."""
    return float(re.findall(r"([\d.]+)%", picture.evaluate("picture => picture.style.clipPath"))[0])


def test_two_models_stand_side_by_side_and_either_may_change(page: Page, photo: Path) -> None:
    upload(page, photo)
    result_pictures(page)
    page.get_by_role("tab", name="Side by side").click()
    pictures = page.locator("#first img, #second img")
    expect(pictures).to_have_count(2, timeout=WAIT)
    expect(page.locator("#first")).to_contain_text("tiny/gan")
    expect(page.locator("#second")).to_contain_text("tiny/wgan")
    gan, wgan = loaded(pictures)
    assert gan != wgan

    page.locator("#model input").click()
    page.get_by_role("option", name="tiny/wgan").click()
    expect(page.locator("#first")).to_contain_text("tiny/wgan", timeout=WAIT)
    expect(page.locator("#first img")).to_have_attribute("src", wgan, timeout=WAIT)  # gradio names files by content


def test_an_example_without_strength_is_grey(page: Page, tmp_path: Path) -> None:
    page.locator("#strength input[type=number]").fill("0")
    page.locator(".gallery-item").first.click()
    result_pictures(page)
    result = lab(downloaded(page, tmp_path))
    assert np.abs(result[1:]).max() < 1
    assert result[0].std() > 5


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda file: file.write_bytes(b"words"), "not a photo, or in a format that is not supported"),
        (
            lambda file: Image.new("1", (2000, 1000)).save(file),
            "2000x1000 pixels: the limit of this page is 1 megapixels",
        ),
        (lambda file: file.write_bytes(b"\0" * 1_100_000), "exceed the maximum allowed size"),
    ],
    ids=["no photo", "too many pixels", "too many bytes"],
)
def test_what_cannot_be_done_is_reported(
    page: Page, tmp_path: Path, write: Callable[[Path], object], words: str
) -> None:
    write(tmp_path / "photo.png")
    upload(page, tmp_path / "photo.png")
    expect(page.get_by_text(words)).to_be_visible(timeout=WAIT)
    expect_download(page.locator("#download"), enabled=False)


def test_what_cannot_be_done_leaves_nothing_of_the_photo_before(page: Page, photo: Path, tmp_path: Path) -> None:
    upload(page, photo)
    downloaded(page, tmp_path)
    (tmp_path / "bad.png").write_bytes(b"neither")
    upload(page, tmp_path / "bad.png")
    expect(page.get_by_text("not a photo, or in a format")).to_have_count(1, timeout=WAIT)  # reported once
    result_pictures(page, 0)
    expect_download(page.locator("#download"), enabled=False)
    upload(page, photo)  # the page still works
    downloaded(page, tmp_path)


def test_a_failure_while_the_file_is_made_leaves_the_page_usable(
    page: Page, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(page, photo)
    downloaded(page, tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))  # where the file is made
    page.locator("#strength input[type=number]").fill("2")
    result_pictures(page, 0)
    expect_download(page.locator("#download"), enabled=False)
    monkeypatch.undo()
    page.locator("#strength input[type=number]").fill("0.5")
    downloaded(page, tmp_path)


def test_the_file_before_is_not_available_while_the_next_is_made(page: Page, photo: Path, tmp_path: Path) -> None:
    strength, button = page.locator("#strength input[type=number]"), page.locator("#download")
    held: list[Route] = []
    upload(page, photo)
    colours = [lab(downloaded(page, tmp_path))]
    page.route("**/queue/join*", lambda route: held.append(route))  # until `continue_` the server does not hear of it
    strength.fill("2")
    expect(button).to_be_disabled()  # the server knows of nothing yet
    strength.fill("0.5")  # while the file of 2 is being made
    held.pop(0).continue_()
    while not held:  # until 2 is done, and 0.5 the next
        page.wait_for_timeout(50)
    expect_download(button, enabled=False)  # 2's file is not what is asked for any more
    held.pop(0).continue_()
    page.unroute("**/queue/join*")
    colours.append(lab(downloaded(page, tmp_path)))
    strength.fill("1.5")
    expect(button).to_be_disabled()
    colours.append(lab(downloaded(page, tmp_path)))
    amounts = [np.abs(colour[1:]).mean() for colour in colours]
    assert amounts[1] < 0.9 * amounts[0] < 0.9 * amounts[2]


def test_a_photo_in_the_place_of_another_is_coloured_once(
    page: Page, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    painted = Mock(wraps=demo.colorize_files)
    monkeypatch.setattr(demo, "colorize_files", painted)
    other = tmp_path / "other.png"
    Image.open(photo).rotate(180).save(other)
    for path in (photo, other):
        upload(page, path)
        downloaded(page, tmp_path)
    page.locator("#strength input[type=number]").fill("0.5")
    downloaded(page, tmp_path)
    jobs = [job for call in painted.call_args_list for job in call.args[1]]
    assert [job.source.name for job in jobs] == ["my photo.png", "other.png", "other.png"]


def test_a_photo_is_pasted(page: Page, address: str, photo: Path, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address.rstrip("/"))
    page.evaluate(
        """async data => {
            const blob = await (await fetch("data:image/png;base64," + data)).blob();
            await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
        }""",
        base64.b64encode(photo.read_bytes()).decode(),
    )
    page.get_by_label("Paste from clipboard").click()
    result_pictures(page)
    assert np.abs(lab(downloaded(page, tmp_path))[0] - lab(photo)[0]).max() < 0.6


def test_a_forged_request_gets_no_other_file_of_the_machine(address: str, photo: Path) -> None:
    def answer(path: Path) -> bool:
        """Whether the server accepts that path for a photo that it was given."""
        fields = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
        request = {"data": [fields, "tiny/gan", "none", 1, 0, None], "fn_index": event, "session_hash": path.stem}
        requests.post(f"{address}gradio_api/queue/join", json=request, timeout=60).raise_for_status()
        stream = requests.get(f"{address}gradio_api/queue/data", {"session_hash": path.stem}, stream=True, timeout=60)
        messages = (json.loads(line.removeprefix(b"data: ")) for line in stream.iter_lines() if line)
        return next(bool(message["success"]) for message in messages if message["msg"] == "process_completed")

    config = requests.get(f"{address}config", timeout=60).json()
    event = next(event["id"] for event in config["dependencies"] if len(event["inputs"]) == 6)
    [example, *_] = Path(os.environ["GRADIO_TEMP_DIR"]).glob("examples/*.jpg")
    assert answer(example)
    assert not answer(photo)


def test_the_server_turned_to_nobody(address: str, connections: list[Any]) -> None:
    assert connections == []
    # Only to see that the watch sees: TEST-NET-1, where nobody is, and a name that nobody has.
    with socket.socket() as probe, pytest.raises(OSError):
        probe.setblocking(False)
        probe.connect(("192.0.2.1", 9))
    with pytest.raises(OSError):
        socket.create_connection(("nobody.invalid", 9))
    assert connections == [("192.0.2.1", 9), "nobody.invalid"]
