"""Trained models for people: which there are, and a folder or an ONNX file of one to hand out.

A bundle is a model's folder again, so that whatever takes one takes the other: `generator.safetensors`, `model.json` with the
scores added, and `README.md`, the model card written from that.
"""

import contextlib
import csv
import importlib.util
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file
from recolor.models.folder import (
    CARD,
    ModelError,
    architecture,
    load_generator,
    read_card,
    save_generator,
    weights_sha256,
)

DO_NOTHING = "grey"
# Columns of scores.csv that people read, and their names.
SCORES = {
    "photos": "N",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "fid": "FID",
    "kid": "KID",
    "is": "IS",
    "colourfulness": "colourfulness",
    "colourfulness_true": "of the true photos",
}


class NotEvaluatedError(UserError):
    """The scores that are there are of other weights."""


def trained(models: Path) -> list[Path]:
    """The model folders of `models`, DATASET/MODEL, newest first.

    By the dates of the files, since nothing in a model tells when it was trained: after `dvc pull` the last that came is first.
    """
    cards = models.glob(f"*/*/{CARD}")
    return [card.parent for card in sorted(cards, key=lambda card: (-card.stat().st_mtime_ns, card))]


def check_evaluated(metrics: Path, model: Path) -> None:
    """Raises NotEvaluatedError where the folder `metrics` does not say that it is of the weights in the folder `model`."""
    notes = metrics / "notes.json"
    try:
        evaluated = json.loads(notes.read_text()).get("models", {}) if notes.exists() else {}
    except (ValueError, AttributeError):
        raise ModelError(f"{notes} is damaged: `dvc checkout` or `dvc repro` brings it back") from None
    if evaluated.get(model.name) != weights_sha256(model):
        raise NotEvaluatedError(f"{model}: not evaluated since it was trained; run `dvc repro`")


def read_scores(metrics: Path, model: Path) -> list[dict[str, Any]]:
    """The scores in the folder `metrics` of the folder `model` and of doing nothing, without what was not measured.

    [] where there are no scores yet; raises NotEvaluatedError where they are of other weights.
    """
    table = metrics / "scores.csv"
    if not table.exists():
        return []
    check_evaluated(metrics, model)
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] in (model.name, DO_NOTHING)]
    return [{key: _number(value) for key, value in row.items() if value} for row in rows]


def describe(card: Mapping[str, Any]) -> str:
    """A model in one line: what its `model.json` says of its training."""
    return f"{card.get('objective', '?')}, {_training(card)}"


def export(model: Path, out: Path, scores: Sequence[Mapping[str, Any]], force: bool = False) -> None:
    """Writes the bundle of the folder `model` into `out`. Raises UserError where `out` has something in it and not `force`."""
    generator, card = load_generator(model), read_card(model)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is a file, and a bundle is a folder; name another")
    if out.exists() and any(out.iterdir()) and not force:
        raise UserError(f"{out}: exists already; --force overwrites it")
    if out.resolve() == model.resolve():
        raise UserError(f"{out}: is the model itself; name another folder")
    card |= {"scores": list(scores) or card.get("scores", [])}
    with _writing(out):
        save_generator(out, generator, card)
        with atomic_file(out / "README.md") as path:
            path.write_text(model_card(card))


@contextlib.contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Around the writing of `out`: where the system forbids it, UserError says so."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None


def export_onnx(model: Path, file: Path, force: bool = False) -> None:
    """Writes the generator of the folder `model` as one ONNX file, with its card as metadata.

    Input `lightness` (B, 1, H, W), output `ab` (B, 2, H, W), float32, normalised as the card says; B is free, and H and W are
    multiples of what the generator needs. Raises UserError where the extra `onnx` is not installed, or `file` exists and not
    `force`.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: pip install 'recolor[onnx]'")
    if file.is_dir():
        raise UserError(f"{file}: is a folder, and --onnx writes a file; name another")
    if file.exists() and not force:
        raise UserError(f"{file}: exists already; --force overwrites it")
    generator, card = load_generator(model), read_card(model)
    multiple = generator.params.multiple
    batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
    program = torch.onnx.export(
        generator,
        (torch.zeros(2, 1, 2 * multiple, 3 * multiple),),  # three sizes that differ: each keeps its own name
        input_names=["lightness"],
        output_names=["ab"],
        dynamic_shapes=({0: batch, 2: multiple * rows, 3: multiple * columns},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # only without dynamo
    program.model.metadata_props.update({key: json.dumps(value) for key, value in card.items()})
    with _writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as path:
            program.save(path, external_data=False)


def model_card(card: Mapping[str, Any]) -> str:
    """A model's README.md, written from its `model.json` alone."""
    description, size = architecture(card).description, card.get("size", "?")
    training = "\n".join(f"    {line}" for line in json.dumps(card.get("params", {}), indent=2).splitlines())
    return f"""---
library_name: recolor
pipeline_tag: image-to-image
tags: [image-colorization, pix2pix, gan]
---

# recolor: {card.get("model", "?")}, trained on {card.get("dataset", "?")}

Colours grey photos. {description[0].upper()}{description[1:]} is shown a photo's lightness
at {size}x{size} pixels and predicts CIELAB's a and b. Trained as in pix2pix, with the adversarial objective
{card.get("objective", "?")}: {_training(card)}.

## How to use it

With recolor installed: `recolor colorize --model THIS_FOLDER photo.jpg`, or

```python
from PIL import Image
from recolor.inference.colorizer import Colorizer

coloured = Colorizer.load("THIS_FOLDER")(Image.open("photo.jpg"))
```

`generator.safetensors` holds the weights, `model.json` everything that is said here. Input is normalised as
`{card["normalisation"]["lightness"]}`, output as `{card["normalisation"]["ab"]}`.

## What it is for

Giving photos that have no colour a plausible one, for looking at; comparing ways of training such a network. The photo's own
lightness is kept, so nothing is added but colour.

## What it is not for

- **The colours are invented.** They are what such photos often show, not what was there: no evidence of anything, of a
  person's skin, hair or clothes least of all. Say so where you show a result.
- It knows what it was trained on. Other subjects, old film (which saw red as dark and blue as light), damaged and toned
  prints come out worse.
- Colours are decided at {size}x{size} pixels: small things take the colour of what is around them.

## Scores

{_score_table(card.get("scores", []), str(card.get("model", "?")))}

## How it was made

Data: manifest SHA-256 `{card.get("data", {}).get("manifest_sha256", "?")}`. Trained with {_versions(card)}. Settings:

{training}
"""


def _training(card: Mapping[str, Any]) -> str:
    return f"{card.get('epochs', '?')} epochs of {card.get('photos', '?')} photos of `{card.get('dataset', '?')}`"


def _versions(card: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in card.get("versions", {}).items()) or "unknown versions"


def _score_table(scores: Iterable[Mapping[str, Any]], model: str) -> str:
    rows = [row for row in scores if row.get("model") in (model, DO_NOTHING)]
    if not rows:
        return "None: this model has not been evaluated."
    shown = [key for key in SCORES if any(key in row for row in rows)]
    lines = [["split", "model", *(SCORES[key] for key in shown)], ["---"] * (2 + len(shown))]
    lines += [[row["split"], row["model"], *(f"{row[key]:.4g}" if key in row else "" for key in shown)] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{table}\n\n`{DO_NOTHING}` is doing nothing: the grey photo handed back. PSNR and SSIM reward it, since lightness is "
        "right already; FID, and\ncolourfulness beside the true photos', show what it misses. `test` holds photos that no "
        "training saw. Scores of few\nphotos (N) say little."
    )


def _number(text: str) -> Any:
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text
