"""The grid: which models are compared, and the settings that make each of them differ from params.yaml."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from recolor.core.errors import UserError
from recolor.core.params import Params, Recipe
from recolor.models.objectives import ADVERSARIAL
from recolor.training.loop import TrainParams

CARD = "run.json"


@dataclass(frozen=True)
class Arm:
    """One kind of training. `settings` replace those of its section; `reference` is the arm that it is compared with."""

    label: str
    color: str  # Okabe and Ito's
    model: str  # gan, wgan; l1 and grey are compared too, and not trained by the grid
    recipe: Recipe = "modern"
    reference: str = "gan"
    settings: dict[str, Any] = field(default_factory=dict)


ARMS = {
    "grey": Arm("grey", "#9a9a9a", "grey"),
    "l1": Arm("L1", "#009e73", "l1"),
    "gan": Arm("GAN", "#0072b2", "gan"),
    "wgan-clip": Arm("clipped WGAN", "#d55e00", "wgan", settings={"constraint": "clip"}),
    "wgan-gp": Arm("WGAN-GP", "#cc79a7", "wgan", settings={"constraint": "gradient_penalty"}),
    "paper-gan": Arm("paper's GAN", "#56b4e9", "gan", "paper", "paper-gan"),
    "paper-wgan": Arm("paper's WGAN", "#e69f00", "wgan", "paper", "paper-gan", {"constraint": "clip"}),
}
TRAINED = [name for name, arm in ARMS.items() if arm.model in ADVERSARIAL]


@dataclass(frozen=True)
class Run:
    """One model. `balance` is None where the weights of params.yaml decide, `seed` where no adversary was trained."""

    arm: str
    balance: float | None
    seed: int | None
    dataset: str

    @property
    def name(self) -> str:
        parts = [("b", self.balance), ("s", self.seed)]
        return "-".join([self.arm, *(f"{key}{value:g}" for key, value in parts if value is not None)])

    @property
    def label(self) -> str:
        return ARMS[self.arm].label + ("" if self.balance is None else f" {self.balance:g}")

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CARD).write_text(json.dumps(asdict(self)) + "\n")


def read_runs(runs: Path) -> dict[Path, Run]:
    """The runs below a folder, in the order of ARMS, then by balance and seed."""
    found = {card.parent: Run(**json.loads(card.read_text())) for card in runs.glob(f"*/{CARD}")}

    def place(run: Run) -> tuple[float, ...]:
        return list(ARMS).index(run.arm), run.balance or 0, run.seed or 0

    return dict(sorted(found.items(), key=lambda item: place(item[1])))


def grid(arms: Iterable[str], balances: Sequence[float], seeds: Sequence[int], dataset: str) -> list[Run]:
    """Every arm at every balance and seed; the paper's arms have fixed weights instead of a balance."""
    wanted = {arm: [None] if ARMS[arm].recipe == "paper" else balances for arm in arms}
    return [Run(arm, balance, seed, dataset) for arm in wanted for balance, seed in product(wanted[arm], seeds)]


def settings(run: Run, params: Path, start: str, epochs: int | None) -> dict[str, Any]:
    """What `run` changes in `params`, by full key. `start` is the folder of the L1 model, `epochs` those of a GAN.

    The arms of the modern recipe make the same number of generator steps: a WGAN, which makes one in every n_critic-th
    batch, has n_critic times the epochs of the GAN, and the decay of its learning rate is as many times longer. The
    paper's arms have the epochs of params.yaml, as in the paper, and start from fresh weights.

    Raises UserError where an override of the dataset would replace one of these settings.
    """
    arm, recipe = ARMS[run.arm], ARMS[run.arm].recipe
    found = Params(params, run.dataset, recipe)
    changed: dict[str, Any] = {"recipe": recipe, f"{recipe}.train.seed": run.seed, f"{recipe}.pretrain.epochs": 0}
    changed |= {f"{recipe}.{arm.model}.{key}": value for key, value in arm.settings.items()}
    if recipe == "modern":
        train = found.section("train", TrainParams)
        times = found.section(arm.model, ADVERSARIAL[arm.model]).n_critic
        epochs = epochs or train.epochs
        decay = round(epochs * train.decay_epochs / train.epochs)
        changed |= {"modern.train.epochs": times * epochs, "modern.train.decay_epochs": times * decay}
        changed |= {"modern.pretrain.start": start, f"modern.{arm.model}.balance": run.balance}
    both = set(changed) & set((found.section("overrides", dict) or {}).get(run.dataset) or {})
    if both:
        raise UserError(f"{params}: overrides.{run.dataset}.{min(both)}: the study sets it; remove this override")
    return changed
