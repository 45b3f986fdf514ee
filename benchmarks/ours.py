"""recolor's side of the comparisons, with the settings of params.yaml, and the made-up photos that both sides get."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from benchmarks.measuring import Sizes
from recolor.core.params import Params, Recipe
from recolor.core.storage import file_sha256
from recolor.models import unet
from recolor.models.generators import GeneratorParams, build_generator
from recolor.models.objectives import ADVERSARIAL, GANParams, ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams
from recolor.runtime.context import Precision, RuntimeContext, determinism, retain_heap
from recolor.training.methods import Adversarial

PARAMS = Path(__file__).parent.parent / "params.yaml"


def objective_params(model: str, recipe: Recipe = "paper") -> ObjectiveParams:
    """A model's section; `l1` is the GAN's without the adversary."""
    params = Params(PARAMS, recipe=recipe)
    if model == "l1":
        found: GANParams = params.section("gan", GANParams)
        return found.model_copy(update={"adversarial_weight": 0})
    return params.section(model, ADVERSARIAL[model])


def networks(sizes: Sizes, recipe: Recipe = "paper") -> tuple[Any, DiscriminatorParams]:
    params = Params(PARAMS, recipe=recipe)
    generator = params.section("generator", GeneratorParams)
    if generator.kind == "unet":
        generator = generator.model_copy(update={"filters": sizes.filters, "downs": sizes.downs})
    discriminator = params.section("discriminator", DiscriminatorParams)
    return generator, discriminator.model_copy(update={"filters": sizes.filters})


def device() -> torch.device:
    return RuntimeContext.find().device


def precision() -> Precision:
    """What `runtime.precision: auto` chooses here."""
    return "bf16" if RuntimeContext.find(precision="auto").bf16 else "fp32"


@contextmanager
def as_in_training() -> Iterator[None]:
    """What recolor.training.loop.train sets for its process."""
    with determinism(False), retain_heap():
        yield


class Trainer:
    """One step after another, as in recolor.training.loop; to be used within `as_in_training`."""

    def __init__(
        self,
        sizes: Sizes,
        model: str,
        precision: Precision = "auto",
        compiled: bool = False,
        recipe: Recipe = "paper",
    ) -> None:
        self.context = RuntimeContext.find(precision=precision)
        self.params = objective_params(model, recipe)
        generator, discriminator = networks(sizes, recipe)
        self.method = Adversarial(self.params, discriminator)
        self.state = self.method.start(build_generator(generator), self.context, ema=0)
        if compiled:
            for network in self.state.networks.values():
                network.compile()

    def step(self, real: Tensor) -> None:
        real = real.to(self.context.device, non_blocking=True)
        self.state.end_step(self.method.step(self.state, real, self.context))


@contextmanager
def with_views() -> Iterator[None]:
    """As in training, but skip connections are joined with torch.cat alone, whose gradients are views."""
    plain = SimpleNamespace(apply=lambda one, other: torch.cat([one, other], dim=1))
    with as_in_training(), mock.patch.object(unet, "ConcatDenseGrad", plain):
        yield


def random_batch(sizes: Sizes) -> Tensor:
    """(B, 3, H, W) in the layout of training batches, the same in every process."""
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
        digest = file_sha256(path)
        rows.append((path.name, path.stat().st_size, digest, "", digest))
    return pd.DataFrame(rows, columns=["path", "size", "sha256", "crop", "group"])
