"""The page of `recolor demo`. Nothing leaves the machine that serves it: no telemetry, no font or script of another host."""

import html
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # gradio reads it when it is imported
# gradio requests its own page to see whether it is up: not through a proxy. Its import fails where a proxy is set that httpx
# does not support, such as SOCKS.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"

import gradio as gr
from PIL import Image
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from recolor.app import demo_films
from recolor.app.colorize import films_are_possible
from recolor.core.devices import find_device
from recolor.core.errors import UserError, one_line
from recolor.images.decoding import decode, to_srgb
from recolor.images.opening import opened
from recolor.inference.colorizer import Colorizer
from recolor.inference.files import colorize_files
from recolor.inference.options import Options
from recolor.inference.plan import plan
from recolor.models.folder import read_card

MAX_MEGAPIXELS = 40
MAX_MEGABYTES = 50
MAX_WAITING = 16  # photos in the queue; one is coloured at a time
MODELS_KEPT = 4  # in memory
PREVIEW = 1600  # pixels of the longer side, on the page; the file is as large as the photo
# Of scikit-image: three grey photos, which no dataset trains on, and the one of `sample` that is its test photo at seed 42.
EXAMPLES = ["camera.png", "coffee.png", "coins.png", "moon.png"]

# Run by the browser, without the server: the download is disabled from a new request on until the file of the newest request
# is there.
ASKED = "asked => [{__type__: 'update', interactive: false}, asked + 1]"
MADE = "(file, asked, made) => ({__type__: 'update', interactive: Boolean(file) && asked === made})"

# Whatever a version of gradio may link to, the browser loads nothing from another host.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")
NO_OTHER = "none"
STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important }
#result .empty, #first .empty, #second .empty { min-height: 420px }
"""
TEXT = f"""# recolor
Gives a photo colours: drop one here, paste one, or click an example. The colours are **invented**: they are what such photos
often show, not what was there. Up to {MAX_MEGAPIXELS} megapixels and {MAX_MEGABYTES} MB; every detail of the photo is kept."""
EXAMPLES_LABEL = (
    "Examples from scikit-image; no dataset trains on them (the cup is the test photo of `sample` at seed 42)"
)


async def own_host_only(request: Request, answer: RequestResponseEndpoint) -> Response:
    """Sends POLICY in every answer."""
    response = await answer(request)
    response.headers["Content-Security-Policy"] = POLICY
    return response


def build(models: Mapping[str, Path], examples: Path, device: str = "auto") -> gr.Blocks:
    """The page for `models` (name: folder), the first one chosen; `examples` is a folder of photos."""
    cards = {name: read_card(folder) for name, folder in models.items()}
    titles = [
        (f"{name}: {c.get('epochs', '?')} epochs, {c.get('photos', '?')} photos", name) for name, c in cards.items()
    ]
    first = next(iter(models))
    shown: dict[str, Any] = {"buttons": ["fullscreen"], "interactive": False}
    load = lru_cache(MODELS_KEPT)(lambda name: Colorizer.load(models[name], device))
    with gr.Blocks(title="recolor", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown(TEXT)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.Image(label="Photo", sources=["upload", "clipboard"], height=300, elem_id="photo")
                model = gr.Dropdown(titles, value=first, label="Model", elem_id="model")
                other = gr.Dropdown(
                    [("nothing", NO_OTHER), *titles], value=_other(models, first), label="Compare with", elem_id="other"
                )
                strength = gr.Slider(
                    0, 2, 1, step=0.05, label="Strength of colour", info="0 is grey, 1 as predicted", elem_id="strength"
                )
                download = gr.DownloadButton("Download", variant="primary", interactive=False, elem_id="download")
            with gr.Column(scale=5, min_width=320), gr.Tabs():
                with gr.Tab("Before and after"):
                    result = gr.ImageSlider(label="Move the line", max_height=640, elem_id="result", **shown)
                with gr.Tab("Side by side"), gr.Row():
                    sides = [gr.Image(label=side, min_width=280, elem_id=side, **shown) for side in ("first", "second")]
        gr.Examples([[str(path)] for path in sorted(examples.iterdir())], [photo], label=EXAMPLES_LABEL)
        if films_are_possible():
            demo_films.add(model, strength, load)
        asked, made = (gr.Number(0, visible=False) for _ in range(2))  # the newest request, and that of the file
        done = gr.State()
        requests = [photo.change, model.change, other.change, strength.change]
        gr.on(requests, None, [asked], [download, asked], js=ASKED, api_visibility="private")
        coloured = gr.on(
            requests,
            partial(_respond, load),
            [photo, model, other, strength, asked, done],
            [result, *sides, download, made, done],
            # Only `opened` opens the photo. gradio has checked by then that it is one of its uploads.
            preprocess=False,
            concurrency_limit=1,
            trigger_mode="always_last",
            show_progress="minimal",
            api_visibility="private",
        )
        coloured.success(None, [download, asked, made], [download], js=MADE, api_visibility="private")
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    return page


def launch(page: gr.Blocks, host: str, port: int) -> str:
    """Serves `page` and returns its address, at once. Raises UserError where that is not possible."""
    _check_port(host, port)
    theme = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"), primary_hue="indigo")
    try:
        _, address, _ = page.launch(
            server_name=f"[{host}]" if ":" in host else host,  # IPv6, as in an address
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=MAX_MEGABYTES * gr.FileSize.MB,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=theme,
            css=STYLE,
            app_kwargs={"middleware": [Middleware(BaseHTTPMiddleware, dispatch=own_host_only)]},
        )
    except Exception as error:  # gradio raises OSError, ValueError and what httpx raises
        reason = one_line(f"{type(error).__name__}: {error}")
        raise UserError(f"the page cannot be served on port {port} of {host}: {reason}") from error
    return str(address)


def serve(models: Mapping[str, Path], host: str, port: int, device: str = "auto") -> None:
    """Serves the page for `models` until it is stopped; the photos that were uploaded are removed when it ends."""
    find_device(device)  # an error now, and not with the first photo
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service that is stopped cleans up as after Ctrl-C
    with tempfile.TemporaryDirectory(prefix="recolor-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(models, grey_examples(Path(folder) / "examples"), device)
        print(f"recolor demo: {launch(page, host, port)} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def _check_port(host: str, port: int) -> None:
    """Raises UserError where nothing can listen there. gradio's own message advises a variable that recolor sets itself."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
    except OSError as error:
        raise UserError(f"port {port} of {host}: {error.strerror}; choose another with --port or --host") from None


def grey_examples(folder: Path) -> Path:
    """Fills `folder` with photos of scikit-image, made grey, as far as they are installed."""
    import skimage

    folder.mkdir(parents=True)
    for name in EXAMPLES:
        photo = Path(skimage.__file__).parent / "data" / name
        if photo.exists():
            decode(photo).convert("L").save(folder / f"{photo.stem}.jpg", quality=92)
    return folder


def _other(models: Mapping[str, Path], first: str) -> str:
    """The model that `first` is compared with by default: the other one of its dataset."""
    same = [name for name, folder in models.items() if folder.parent == models[first].parent and name != first]
    return same[0] if same else NO_OTHER


def _respond(
    load: Callable[[str], Colorizer],
    photo: dict[str, Any] | None,
    model: str,
    other: str,
    strength: float,
    asked: int,
    done: Any,
) -> Iterator[tuple[Any, ...]]:
    """`_colour`, with a UserError shown on the page; what is `done` is not done again: gradio reports some changes twice."""
    chosen = Path(photo["path"]) if photo else None, model, other, strength
    if chosen == done:
        yield *[gr.skip()] * 4, asked, done
        return
    try:
        for outputs in _colour(load, *chosen):
            yield *outputs, asked, chosen
    except Exception as error:
        yield *_nothing(), asked, chosen
        if not isinstance(error, UserError):
            raise
        raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from None


def _nothing() -> tuple[Any, ...]:
    """The outputs where there is no result."""
    empty = gr.Image(None, label="")
    return None, empty, empty, gr.DownloadButton("Download", value=None)


def _colour(
    load: Callable[[str], Colorizer], photo: Path | None, model: str, other: str, strength: float
) -> Iterator[tuple[Any, ...]]:
    """The page's outputs: first the pictures, at the page's size, then the file, at the photo's."""
    if photo is None:
        yield _nothing()
        return
    preview = _preview(photo)
    colorizer, before, after = load(model), preview.copy(), preview.copy()
    [predicted] = colorizer.predict([preview])
    for picture, share in ((before, 0), (after, strength)):  # in grey, in colour
        colorizer.paint(picture, predicted, Options(strength=share))
    compared = [gr.Image(after, label=model), gr.Image(None, label="")]
    if other != NO_OTHER:
        compared[1] = gr.Image(load(other)(preview, strength=strength), label=other)
    yield (before, after), *compared, gr.DownloadButton("Making the file ...", value=None)

    with tempfile.TemporaryDirectory() as folder:
        [job] = colorize_files(colorizer, plan([photo], Path(folder)), Options(strength=strength))
        if job.problem:
            raise UserError(job.problem)
        # gradio copies the file to its own folder before it continues here.
        yield gr.skip(), gr.skip(), gr.skip(), gr.DownloadButton("Download", value=job.target)


def _preview(photo: Path) -> Image.Image:
    with opened(photo) as file:
        if file.width * file.height > MAX_MEGAPIXELS * 10**6:
            raise UserError(
                f"{file.width}x{file.height} pixels: the limit of this page is {MAX_MEGAPIXELS} megapixels; "
                "`recolor colorize` has a higher one"
            )
        image = to_srgb(file)
    image.thumbnail((PREVIEW, PREVIEW), Image.Resampling.LANCZOS)
    return image
