"""One model out of several: the mean of their weights (the uniform soup of Wortsman et al. 2022, "Model soups")."""

from collections.abc import Sequence
from pathlib import Path

import torch

from recolor.core.errors import UserError
from recolor.models.folder import architecture, load_generator, read_card, save_generator, weights_sha256

OF_TRAINING = {
    "dropout",
    "encoder_lr",
    "encoder_weights",
    "freeze_encoder",
}  # settings that change no result of a model


def average(folders: Sequence[Path], out: Path) -> None:
    """Writes the model folder `out`: the mean of the weights in `folders`, batch norm's statistics included.

    For models that were trained from the same weights: what one of them invents and the others do not is weakened. The card is
    the first one's, with the settings of all. Raises UserError: fewer than two, or their networks or splits differ.
    """
    if len(folders) < 2:
        raise UserError(f"models: got {len(folders)}; a mean needs two or more")
    generator = load_generator(folders[0])
    states = [generator.state_dict(), *(load_generator(folder).state_dict() for folder in folders[1:])]
    cards = [read_card(folder) for folder in folders]
    networks = [architecture(card).model_dump(exclude=OF_TRAINING) for card in cards]
    for folder, network, card in zip(folders, networks, cards, strict=True):
        if network != networks[0]:
            raise UserError(f"{folder}: has another network than {folders[0]}")
        if card.get("data") != cards[0].get("data"):
            raise UserError(f"{folder}: was trained on another split than {folders[0]}")
    floats = [name for name, tensor in states[0].items() if tensor.is_floating_point()]
    means = {name: torch.stack([state[name] for state in states]).mean(0) for name in floats}
    generator.load_state_dict(states[0] | means)
    computed = ("format", "architecture", "normalisation", "scores", "made")
    kept = {key: value for key, value in cards[0].items() if key not in computed}
    objectives = ", ".join(dict.fromkeys(str(card.get("objective", "?")) for card in cards))
    averaged = [
        {"sha256": weights_sha256(folder), "objective": card.get("objective"), "params": card.get("params", {})}
        for folder, card in zip(folders, cards, strict=True)
    ]
    new = {"objective": f"mean of {len(cards)} models ({objectives})", "averaged": averaged}
    save_generator(out, generator, kept | new)
