"""Runs of tiny networks on made-up photos."""

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recolor.dataset.augment import AugmentParams
from recolor.models.generators import build_generator
from recolor.models.objectives import GANParams, ObjectiveParams, WGANParams
from recolor.models.patchgan import DiscriminatorParams
from recolor.models.unet import UNetParams
from recolor.runtime.context import RuntimeContext, RuntimeParams
from recolor.training.checkpoints import Checkpoints
from recolor.training.loop import Trained, TrainParams, derived_seed, train
from recolor.training.methods import Adversarial, Method, Pretraining, PretrainParams
from recolor.training.state import TrainState

GENERATOR = UNetParams(kind="unet", filters=2, downs=4, dropout=0.5)
DISCRIMINATOR = DiscriminatorParams(filters=2, downs=2, scale=1)
GAN = GANParams(lr=2e-3, betas=(0.5, 0.999), l1_weight=100, adversarial_weight=1, balance=None)
WGAN = WGANParams(
    constraint="clip",
    clip=0.125,
    penalty_weight=10,
    lr=1e-3,
    n_critic=3,
    l1_weight=100,
    adversarial_weight=1,
    balance=None,
)
PENALISED = WGAN.model_copy(update={"constraint": "gradient_penalty", "lr": 4e-3})
OBJECTIVES: dict[str, ObjectiveParams] = {"gan": GAN, "wgan clip": WGAN, "wgan gradient_penalty": PENALISED}
PRETRAIN = PretrainParams(epochs=2, start="none", lr=1e-3, warmup_steps=2, weight_decay=0.01, clip_norm=1)
METHODS: dict[str, ObjectiveParams | PretrainParams] = {**OBJECTIVES, "l1": PRETRAIN}
CONTEXT = RuntimeContext.find("cpu", "fp32")
AUGMENT = AugmentParams(flip=True, crop=1, tone=0, film=0)
RUNTIME = RuntimeParams(device="cpu", precision="fp32", compile=False, data_on_device=False)


class MadePhotos:
    """Seeded noise in the shape of photos. `lab` holds numbers of float16, as a cache does."""

    def __init__(self, count: int, size: int = 32) -> None:
        noise = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3)) * 2 - 1
        self.lab = noise.half().float()
        self.shape = (3, size, size)
        self.asked: list[int] = []
        self.spoilt_after: float = math.inf

    def __len__(self) -> int:
        return len(self.lab)

    def read_fp16(self, indices: np.ndarray) -> Tensor:
        self.asked += indices.tolist()
        return self.lab[indices].half() * (1 if len(self.asked) <= self.spoilt_after else math.nan)


class Wrapped:
    """A method with another step."""

    def __init__(self, method: Method, step: Callable[..., dict[str, Tensor]]) -> None:
        self.name, self.start, self.rate_factor, self.step = method.name, method.start, method.rate_factor, step


def stopped_in_step(number: int, method: Method) -> Wrapped:
    """`method`, with a SIGTERM for this process when its step `number` begins."""
    steps = 0

    def step(*arguments: Any) -> dict[str, Tensor]:
        nonlocal steps
        steps += 1
        if steps == number:
            signal.raise_signal(signal.SIGTERM)
        return method.step(*arguments)

    return Wrapped(method, step)


def method_for(params: ObjectiveParams | PretrainParams, decay_epochs: int = 0) -> Method:
    if isinstance(params, PretrainParams):
        return Pretraining(params)
    return Adversarial(params, DISCRIMINATOR, decay_epochs)


def settings(**changes: Any) -> TrainParams:
    return TrainParams(
        **{"seed": 1, "epochs": 2, "batch_size": 4, "decay_epochs": 0, "ema": 0.0, "sample_epochs": 10, **changes}
    )


def run(
    folder: Path,
    params: ObjectiveParams | PretrainParams = GAN,
    photos: MadePhotos | None = None,
    runtime: RuntimeParams = RUNTIME,
    augment: AugmentParams = AUGMENT,
    generator: Any = GENERATOR,
    wrap: Callable[[Method], Method] = lambda method: method,
    log: Callable[[str], None] = lambda line: None,
    **changes: Any,
) -> Trained:
    """A run of tiny networks; `changes` are those of section `train`."""
    train_params = settings(**changes)
    torch.manual_seed(derived_seed(train_params.seed))
    return train(
        wrap(method_for(params, train_params.decay_epochs)),
        build_generator(generator),
        photos or MadePhotos(12),
        train_params,
        augment,
        runtime,
        RuntimeContext.find(runtime.device, runtime.precision),
        Checkpoints(folder),
        log,
    )


def state_for(params: ObjectiveParams) -> TrainState:
    torch.manual_seed(0)
    return method_for(params).start(build_generator(GENERATOR), CONTEXT, 0)


def weights(trained: Trained) -> dict[str, Tensor]:
    return trained.generator.state_dict()


def assert_identical(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name
