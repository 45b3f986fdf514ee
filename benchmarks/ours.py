"""recolor's side of the comparisons, with the settings of params.yaml, and the made-up photos that both sides get."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from benchmarks.measuring import Sizes
from recolor.core.params import Params
from recolor.models import convolutions
from recolor.models import networks as networks_module
from recolor.models.networks import DiscriminatorParams, GeneratorParams
from recolor.runtime.devices import Machine, determinism, memory_kept
from recolor.runtime.distributed import Crew
from recolor.training.loop import Players, train_step
from recolor.training.objectives import GANParams, Recipe, WGANParams

PARAMS = Path(__file__).parent.parent / "params.yaml"


def recipe(name: str) -> Recipe:
    kinds: dict[str, type] = {"gan": GANParams, "wgan": WGANParams}
    return Params(PARAMS).section(name, kinds[name])


def networks(sizes: Sizes) -> tuple[GeneratorParams, DiscriminatorParams]:
    params = Params(PARAMS)
    generator = params.section("generator", GeneratorParams)
    discriminator = params.section("discriminator", DiscriminatorParams)
    return (
        generator.model_copy(update={"filters": sizes.filters, "downs": sizes.downs}),
        discriminator.model_copy(update={"filters": sizes.filters}),
    )


def precision() -> str:
    """What `train.precision: auto` comes to here."""
    return "bf16" if Machine.find(precision="auto").bf16 else "fp32"


@contextmanager
def as_in_training() -> Iterator[None]:
    """What recolor.training.loop.train sets for its process."""
    with determinism(False), memory_kept():
        yield


class Trainer:
    """One step after another, as recolor.training.loop takes them; to be used within `as_in_training`."""

    def __init__(self, sizes: Sizes, model: str, compiled: bool = False) -> None:
        self.machine = Machine.find(precision="auto")
        self.recipe = recipe(model)
        self.players = Players(*networks(sizes), self.recipe, self.machine.device)
        self.objective = self.recipe.objective()
        self.steps = 0
        if compiled:
            self.players.generator.compile()
            self.players.critic.compile()

    def step(self, real: Tensor) -> None:
        self.steps += 1
        generator_turn = self.steps % self.recipe.n_critic == 0
        real = real.to(self.machine.device, non_blocking=True)
        train_step(self.players, self.recipe, self.objective, real, generator_turn, self.machine, Crew())


SWITCHES = ("dense gradients at the skips", "activations in place", "convolutions as products")


@contextmanager
def without(switch: str, trainer: Trainer) -> Iterator[None]:
    """One of SWITCHES off for `trainer` within the block."""
    if switch == SWITCHES[0]:
        plain = SimpleNamespace(apply=lambda one, other: torch.cat([one, other], dim=1))
        with mock.patch.object(networks_module, "_Beside", plain):
            yield
    elif switch == SWITCHES[1]:
        both = [trainer.players.generator, trainer.players.critic]
        layers = [layer for network in both for layer in network.modules() if hasattr(layer, "inplace")]
        activations = [layer for layer in layers if layer.inplace]
        for layer in activations:
            layer.inplace = False
        yield
        for layer in activations:
            layer.inplace = True
    else:
        with mock.patch.object(convolutions, "_as_product", lambda *_: False):
            yield


def random_batch(sizes: Sizes) -> Tensor:
    """(B, 3, H, W) in the layout of the feed, the same in every process."""
    random = torch.Generator().manual_seed(1)
    batch = torch.rand(sizes.batch, 3, sizes.size, sizes.size, generator=random) * 2 - 1
    return batch.contiguous(memory_format=torch.channels_last)


def make_photos(folder: Path, count: int, size: tuple[int, int], seed: int = 1) -> pd.DataFrame:
    """`count` JPEG files, each different; returns their listing. Smoother than photos: 30 kB at 500x375."""
    rng = np.random.default_rng(seed)
    width, height = size
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        picture = np.zeros((height, width, 3))
        for cells in (4, 16, 64):  # big shapes in strong colours, small ones in weak ones
            noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            picture += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), np.float64) * 2 / cells**0.5
        picture = 255 * (picture - picture.min()) / np.ptp(picture)
        path = folder / f"{number:06d}.jpg"
        Image.fromarray(picture.astype(np.uint8)).save(path, quality=90)
        digest = sha256(path.read_bytes()).hexdigest()
        rows.append((path.name, path.stat().st_size, digest, "", digest))
    return pd.DataFrame(rows, columns=["path", "size", "sha256", "crop", "group"])
