"""`recolor demo` up to the page: which models it serves, where, and what it answers where it cannot."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests
import skimage
from PIL import Image

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytest.importorskip("playwright", reason="the extra `dev` is not installed")

from commands import recolor
from surroundings import free_port

from recolor.app import demo
from recolor.core.errors import UserError
from recolor.models.folder import CARD
from recolor.sources.fetch import SAMPLE
from stages import paths


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_an_error(models: dict[str, Path], tmp_path: Path, host: str) -> None:
    with pytest.raises(UserError, match=host):
        demo.launch(demo.build(models, demo.grey_examples(tmp_path / "examples"), "cpu"), host, free_port())


def test_a_taken_port_is_an_error_whose_advice_works() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}.* --port") as caught:
            demo.launch(demo.gr.Blocks(), "127.0.0.1", port)
    assert "GRADIO" not in str(caught.value)


def test_a_device_that_is_not_here_is_an_error_before_the_page_is_served(models: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="cuda:99"):
        demo.serve(models, "127.0.0.1", free_port(), "cuda:99")


def test_it_starts_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    for name in ("ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")  # which httpx refuses when gradio is imported
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "example.org")
    script = f"""
import requests
from recolor.app import demo
with demo.gr.Blocks() as page:
    pass
print(requests.get(demo.launch(page, "127.0.0.1", {free_port()})).status_code, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["200"]), done.stderr


def test_the_command_serves_on_loopback_what_is_trained_and_what_is_named(
    models: dict[str, Path], empty_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(demo, "serve", lambda *arguments: served.append(arguments))
    result = recolor("demo")
    assert (result.exit_code, served) == (1, [])
    assert "--model" in result.stderr

    trained = paths.model("mine", "gan")
    trained.parent.mkdir(parents=True)
    trained.symlink_to(models["tiny/gan"], target_is_directory=True)
    assert recolor("demo", "--model", models["tiny/wgan"]).exit_code == 0
    [(shown, host, port, device)] = served
    assert list(shown.values()) == [models["tiny/wgan"], trained]
    assert "mine/gan" in shown
    assert (host, port, device) == ("127.0.0.1", 7860, "auto")


def test_a_model_that_cannot_be_read_is_left_out_unless_it_is_named(
    models: dict[str, Path], empty_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    monkeypatch.setattr(demo, "serve", lambda *arguments: served.append(list(arguments[0])))
    for name in ("new", "old"):
        shutil.copytree(models["tiny/gan"], paths.model(name, "gan"))
    damaged = paths.model("new", "gan") / CARD
    damaged.write_text("{")
    os.utime(paths.model("old", "gan") / CARD, (0, 0))
    result = recolor("demo")
    assert (result.exit_code, served.pop()) == (0, ["old/gan"])
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [str(damaged)]
    result = recolor("demo", "-m", "new/gan")
    assert (result.exit_code, served) == (1, [])
    assert result.stderr.startswith(f"error: {damaged}: ")
    shutil.rmtree(paths.model("old", "gan"))
    result = recolor("demo")
    assert (result.exit_code, served) == (1, [])
    assert "--model" in result.stderr


def test_it_serves_on_ipv6(models: dict[str, Path], tmp_path: Path) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    page = demo.build(models, demo.grey_examples(tmp_path / "examples"), "cpu")
    address = demo.launch(page, "::1", free_port())
    try:
        assert address.startswith("http://[::1]:")
        assert requests.get(address, timeout=60).ok
    finally:
        page.close()


def test_the_examples_are_photos_that_no_training_saw() -> None:
    assert set(demo.EXAMPLES) & set(SAMPLE) == {"coffee.png"}  # the test photo
    for name in set(demo.EXAMPLES) - set(SAMPLE):
        assert Image.open(Path(skimage.__file__).parent / "data" / name).mode == "L"
