"""The trained models in a folder, and ONNX files of them."""

import contextlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file, is_folder
from recolor.models.folder import CARD, load_generator, read_card, tensor_bytes


def trained(models: Path) -> list[Path]:
    """The model folders of `models`, DATASET/MODEL, newest first.

    Sorted by the dates of the files; a model does not hold the date of its training. `dvc pull` sets them anew.
    """
    cards = models.glob(f"*/*/{CARD}")
    return [card.parent for card in sorted(cards, key=lambda card: (-card.stat().st_mtime_ns, card))]


def describe(card: Mapping[str, Any]) -> str:
    """The training of a model in one line, from its `model.json`."""
    epochs = card.get("epochs", "?")
    training = f"{epochs} epoch{'' if epochs == 1 else 's'} of {card.get('photos', '?')} photos of `{card.get('dataset', '?')}`"
    return f"{card.get('objective', '?')}, {training}"


@contextlib.contextmanager
def writing(out: Path, force: bool = True) -> Iterator[None]:
    """Turns an OSError while `out` is written into UserError; raises one where it exists, unless `force` or it is empty.

    A new folder is removed when the block fails.
    """
    existed = os.path.lexists(out)
    try:
        if not force and existed and not (is_folder(out) and not any(out.iterdir())):
            raise UserError(f"{out}: exists already; --force overwrites it")
        yield
    except BaseException as error:
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        if isinstance(error, OSError):
            raise UserError(f"{out}: cannot be written: {error.strerror}") from None
        raise


def export_onnx(model: Path, file: Path, force: bool = False) -> None:
    """Writes the generator of the folder `model` as one ONNX file, with its card as metadata.

    Input `lightness` (B, 1, H, W), output `ab` (B, 2, H, W), float32, normalised as the card says; B is free, and H and W are
    multiples of what the generator needs. Raises UserError where the extra `onnx` is not installed, or `file` exists and not
    `force`.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: pip install 'recolor[onnx]'")
    if is_folder(file):
        raise UserError(f"{file}: is a folder, and --onnx writes a file; name another")
    generator, card = load_generator(model), read_card(model)
    # What cannot be written is known before the minutes that the export takes.
    with writing(file, force), atomic_file(file, "the model", tensor_bytes(generator.state_dict())) as path:
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
        program.save(path, external_data=False)
