"""Model folders: the weights of a generator as safetensors and a card as JSON. Loading one cannot run code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from recolor.core.errors import UserError, one_line
from recolor.core.storage import atomic_file, file_sha256
from recolor.images.color import AB_SCALE, L_CENTRE
from recolor.models.generators import GeneratorParams, build_generator
from recolor.models.layers import Generator

FORMAT = 1
WEIGHTS = "generator.safetensors"
CARD = "model.json"
NORMALISATION = {"lightness": f"L / {L_CENTRE:g} - 1", "ab": f"ab / {AB_SCALE:g}"}
SHIPPED = Path(__file__).parents[1] / "weights"  # models that come with the package
DEFAULT = "vivid"  # of these
AGAIN = "`dvc repro` makes a model of a repository again; copy any other again"
SMALL_TENSOR = 10_000  # numbers; stays float32 in a file of float16


class ModelError(UserError):
    """A model folder that is missing, damaged, or not one of recolor's."""


def _params(architecture: Any) -> Any:
    """Cards of older versions name no kind: all were U-Nets."""
    if not isinstance(architecture, dict):
        return architecture
    return {"kind": "unet"} | {key: value for key, value in architecture.items() if key != "name"}


class _Card(BaseModel, strict=True):
    """The keys of a card that are read, beside format and normalisation; it may hold more."""

    architecture: Annotated[GeneratorParams, BeforeValidator(_params)]
    size: int = Field(256, ge=1)
    data: dict[str, Any] = {}
    params: dict[str, Any] = {}
    scores: list[dict[str, Any]] = []


def save_generator(
    directory: Path, generator: Generator, card: dict[str, Any], dtype: torch.dtype = torch.float32
) -> None:
    """Writes `generator.safetensors` and `model.json`: format, architecture, normalisation, and what `card` adds.

    `dtype` float16 halves the file. Tensors of up to SMALL_TENSOR numbers stay float32: those of batch norm and of depthwise
    convolutions are a hundredth of the weights, and rounding them changes a result the most.
    """
    weights = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    for name, tensor in weights.items():
        if tensor.is_floating_point() and tensor.numel() > SMALL_TENSOR:
            weights[name] = tensor.to(dtype)
    with atomic_file(directory / WEIGHTS, "the model", tensor_bytes(weights)) as path:
        path.write_bytes(save(weights))  # save_file hides the system's errors in text
    architecture = {"name": type(generator).__name__, **generator.params.model_dump(mode="json")}
    content = {"format": FORMAT, "architecture": architecture, "normalisation": NORMALISATION, **card}
    with atomic_file(directory / CARD, "the model") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def read_card(directory: Path) -> dict[str, Any]:
    """`model.json`. Raises ModelError where it is missing, damaged, wrong, or of an unknown format."""
    path = directory / CARD
    try:
        card = json.loads(path.read_text())
    except FileNotFoundError:
        raise ModelError(f"{directory}: no model here ({CARD} is missing); `dvc repro` trains one") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: damaged: {error}; {AGAIN}") from None
    if not isinstance(card, dict):
        raise ModelError(f"{path}: not the card of a model: {AGAIN}")
    if card.get("format") != FORMAT:
        raise ModelError(f"{path}: format {card.get('format')}; this version of recolor reads format {FORMAT}")
    if card.get("normalisation") != NORMALISATION:
        raise ModelError(f"{path}: trained on another normalisation than {NORMALISATION}")
    try:
        architecture(card)
    except ValidationError as error:
        wrong = error.errors()[0]
        key = ".".join(map(str, wrong["loc"]))
        raise ModelError(f"{path}: {key}: {wrong['msg']}; got {str(wrong['input'])[:80]}") from None
    return card


def architecture(card: Mapping[str, Any]) -> Any:
    """The generator's params (GeneratorParams) that a card names."""
    return _Card.model_validate(card).architecture


def load_generator(directory: Path, device: torch.device | str = "cpu") -> Generator:
    """The generator of a model folder, float32, in eval mode. Raises ModelError as `read_card`, and for unfit weights."""
    params = architecture(read_card(directory))
    path = directory / WEIGHTS
    with torch.device("meta"):
        generator = build_generator(params)
    expected = generator.state_dict()
    try:
        weights = load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; {AGAIN}") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise ModelError(f"{path}: damaged: {one_line(error, 200)}; {AGAIN}") from None
    for name, tensor in weights.items():
        if name in expected and tensor.dtype not in (expected[name].dtype, torch.float16):
            raise ModelError(f"{path}: {name} is {tensor.dtype}; this version of recolor reads {expected[name].dtype}")
        if not tensor.isfinite().all():
            raise ModelError(f"{path}: {name} holds values that are not finite: the model cannot be used")
        weights[name] = tensor.to(expected[name].dtype) if name in expected else tensor
    if any(buffer.is_meta and name not in expected for name, buffer in generator.named_buffers()):
        generator = build_generator(params)  # an encoder with buffers that no file holds
    try:
        generator.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ModelError(f"{path}: not this model's weights: {one_line(error, 200)}") from None
    return generator.to(device).eval()


def starting_generator(params: Any, start: Path | None, seed: int) -> Generator:
    """A new generator, with the weights of the folder `start` if there is one. Raises UserError if its network is another."""
    torch.manual_seed(seed)
    generator = build_generator(params)
    if start is None:
        generator.load_encoder_weights()
        return generator
    trained = load_generator(start)
    try:
        generator.load_state_dict(trained.state_dict())
    except RuntimeError:
        asked, found = params.description, trained.params.description
        raise UserError(f"{start}: its generator is {found}; the section generator asks for {asked}") from None
    return generator


def shipped_models() -> list[Path]:
    """The folders of the models that come with the package, the default first."""
    folders = (card.parent for card in SHIPPED.glob(f"*/{CARD}"))
    return sorted(folders, key=lambda folder: (folder.name != DEFAULT, folder.name))


def default_shipped_model() -> Path:
    """The folder of the default model. Raises ModelError where the package comes without a model."""
    folders = shipped_models()
    if not folders:
        raise ModelError(f"{SHIPPED}: recolor was installed without a model; name a model's folder")
    return folders[0]


def trained_on(folder: Path, manifest: str) -> bool:
    """Whether the model of `folder` was trained on the split with this SHA-256 of its manifest, or its card names none."""
    return read_card(folder).get("data", {}).get("manifest_sha256", manifest) == manifest


def describe(card: Mapping[str, Any]) -> str:
    """The training of a model in one line, from its `model.json`."""
    epochs = card.get("epochs", "?")
    times = "" if "averaged" in card else f"{epochs} epoch{'' if epochs == 1 else 's'} of "
    return f"{card.get('objective', '?')}, {times}{card.get('photos', '?')} photos of `{card.get('dataset', '?')}`"


def weights_sha256(directory: Path) -> str:
    """Identifies the weights of a model folder. Raises ModelError where it has none."""
    try:
        return file_sha256(directory / WEIGHTS)
    except OSError as error:
        raise ModelError(f"{directory / WEIGHTS}: cannot be read: {error.strerror}") from None


def tensor_bytes(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
