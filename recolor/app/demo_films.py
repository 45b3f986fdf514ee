"""The films of `recolor demo`: a clip in, its colours in a player beside it. Needs the extra `video` too."""

import html
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from recolor.core.errors import UserError
from recolor.inference.colorizer import Colorizer
from recolor.inference.options import Options

SECONDS = 30  # of the longest clip: the page does one at a time


def add(model: Any, strength: Any, load: Callable[[str], Colorizer]) -> None:
    """Adds the clip's players to the page; `model` and `strength` are its components, `load` returns a model by its name."""

    def shown(
        film: dict[str, Any] | None,
        name: str,
        share: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 (gradio finds it by its default)
    ) -> Iterator[str | None]:
        """The coloured clip; after a failure there is none, and a UserError is shown."""
        yield None
        if film is None:
            return
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield str(_colour(load(name), Path(film["path"]), Path(folder), share, progress))
        except UserError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from None

    with gr.Accordion(f"A film, up to {SECONDS} seconds", open=False, elem_id="films"):
        with gr.Row():
            before = gr.Video(label="Before", sources=["upload"], height=360, elem_id="film")
            after = gr.Video(label="After", interactive=False, height=360, elem_id="coloured-film")
        again = gr.Button("Colour it", elem_id="colour-film")
        gr.on(
            [before.upload, again.click],
            shown,
            [before, model, strength],
            [after],
            # Only `probe` opens the clip. gradio has checked by then that it is one of its uploads.
            preprocess=False,
            concurrency_limit=1,
            concurrency_id="films",
            api_visibility="private",
        )


def _colour(colorizer: Colorizer, path: Path, folder: Path, strength: float, progress: gr.Progress) -> Path:
    from recolor.video.film import colorize_film
    from recolor.video.reading import FilmError, probe

    if (length := probe(path).seconds) > SECONDS:
        raise FilmError(f"{length:.0f} seconds: the limit of this page is {SECONDS}; `recolor colorize` has none")
    target = folder / f"{path.stem}-recolor.mp4"
    options = Options(strength=strength, end=SECONDS)
    colorize_film(colorizer, path, target, options, progress=lambda *frames: progress(frames, unit="frames"))
    return target
