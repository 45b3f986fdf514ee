"""Headless Chromium, for what only a browser can show."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

# Headless, without requests of the browser's own, and without the sandbox, which does not run as root.
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's. Skips the test, with the reason, where it is not installed."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, wait: float) -> Iterator[Page]:
    """The page at `address`, with a timeout of `wait` ms. At the end: it sent no request to another host, and had no error."""
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    context.set_default_timeout(wait)
    page = context.new_page()
    asked, errors = listen(page)
    page.goto(address)
    yield page
    context.close()
    assert asked
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert errors == []


def listen(page: Page) -> tuple[list[str], list[str]]:
    """From now on: the addresses of the page's requests, and the errors in its console."""
    requests: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return requests, errors
