"""A clip in the demo, opened in a browser."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytest.importorskip("playwright", reason="the extra `dev` is not installed")
pytest.importorskip("av", reason="the extra `video` is not installed")
pytest.importorskip("cv2", reason="the extra `video` is not installed")

import requests
from browser import opened
from films import moving, packets, read, write_film
from playwright.sync_api import Browser, Page, expect
from surroundings import free_port

from recolor.app import demo, demo_films

WAIT = 60_000  # milliseconds: for a busy machine


@pytest.fixture(scope="module")
def address(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setattr(demo_films, "SECONDS", 2)
        page = demo.build(models, demo.grey_examples(folder / "examples"), "cpu")
        yield demo.launch(page, "127.0.0.1", free_port())
        page.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    with opened(browser, address, WAIT) as page:
        page.get_by_text("A film, up to").click()
        yield page


def test_a_clip_is_coloured_and_both_play(page: Page, tmp_path: Path) -> None:
    clip = write_film(tmp_path / "my clip.mp4", moving(30, (96, 128)), sound=True, crf=18)
    page.locator("#film input[type=file]").set_input_files(clip)
    before, after = page.locator("#film video"), page.locator("#coloured-film video")
    for player in (before, after):
        expect(player).to_have_js_property("videoWidth", 128, timeout=WAIT)
        player.evaluate("player => { player.muted = true; return player.play() }")
        expect(player).to_have_js_property("ended", True, timeout=WAIT)
    source = str(after.get_attribute("src"))
    assert source.endswith("-recolor.mp4")
    content = tmp_path / "result.mp4"
    content.write_bytes(requests.get(source, timeout=60).content)
    assert [len(packets(path, "audio")) for path in (clip, content)] == [len(packets(clip, "audio"))] * 2
    chroma = [frame.to_ndarray()[96:].astype(int) - 128 for frame in read(content)]
    assert len(chroma) == 30
    assert np.abs(chroma).mean() > 3


def test_a_clip_that_is_too_long_is_refused(page: Page, tmp_path: Path) -> None:
    page.locator("#film input[type=file]").set_input_files(write_film(tmp_path / "long.mp4", moving(60), crf=18))
    expect(page.get_by_text("the limit of this page is 2")).to_be_visible(timeout=WAIT)
    expect(page.locator("#coloured-film video")).to_have_count(0)
