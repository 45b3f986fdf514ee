"""ONNX files of models."""

import importlib.util
import json
from pathlib import Path

import torch
from timm.layers import Conv2dSame
from torch import nn

from recolor.core.errors import UserError
from recolor.core.storage import atomic_file, is_folder, user_output
from recolor.models.folder import load_generator, read_card, tensor_bytes
from recolor.models.layers import Generator


def export_onnx(model: Path, file: Path, force: bool = False) -> None:
    """Writes the generator of the folder `model` as one ONNX file, with its card as metadata.

    Input `lightness` (B, 1, H, W), output `ab` (B, 2, H, W), float32, normalised as in the card; B is free, and H and W are
    multiples of what the generator needs. Raises UserError without the extra `onnx`, and where `file` exists, unless `force`.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} missing: pip install 'recolor[onnx]'")
    if is_folder(file):
        raise UserError(f"{file}: is a folder, and --onnx writes a file; name another")
    generator, card = load_generator(model), read_card(model)
    # What cannot be written is known before the minutes that the export takes.
    with user_output(file, force), atomic_file(file, "the model", tensor_bytes(generator.state_dict())) as path:
        multiple = generator.params.multiple
        batch, rows, columns = (torch.export.Dim(name, min=1) for name in ("batch", "rows", "columns"))
        program = torch.onnx.export(
            _with_fixed_padding(generator),
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


def _with_fixed_padding(generator: Generator) -> Generator:
    """`generator` with fixed padding, kernel size minus stride: timm's depends on H and W, and its export takes minutes."""
    for name, layer in list(generator.named_modules()):
        if isinstance(layer, Conv2dSame):
            (rows, columns), (down, right) = layer.kernel_size, layer.stride
            rows, columns = rows - down, columns - right
            padding = nn.ZeroPad2d((columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
            layer.__class__ = nn.Conv2d  # type: ignore[assignment]  # whose own padding is 0
            generator.set_submodule(name, nn.Sequential(padding, layer))
    return generator
