"""One loop for every objective: read `train` top to bottom.

A GAN and a WGAN differ by their recipe (objectives.py) alone. A step's randomness comes from the seed and the step's number,
so a checkpoint needs no generator's state, and an interrupted run reaches the very weights of an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BaseModel, Field
from torch import Tensor, nn

from recolor.checkpoint import Checkpoints
from recolor.devices import Device, Machine, Precision
from recolor.errors import UserError
from recolor.interrupts import stop_signals
from recolor.ledger import CRITIC_PIECES, Ledger, Place
from recolor.networks import DiscriminatorParams, GeneratorParams, PatchDiscriminator, UNetGenerator
from recolor.objectives import Objective, Recipe
from recolor.progress import progress


class TrainParams(BaseModel, extra="forbid", frozen=True):
    """Section `train`: what both models share."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    flip: bool
    decay_epochs: int = Field(ge=0)
    device: Device
    precision: Precision
    checkpoint_minutes: float = Field(gt=0)


class Photos(Protocol):
    """What training asks of its photos; `recolor.cache.CachedPhotos` is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, indices: NDArray[np.intp]) -> Tensor:
        """(B, 3, H, W) normalised Lab in float32, a copy that may be written to."""
        ...


class Interrupted(UserError):
    """Training was asked to stop, and has saved where it was."""


class Players:
    """Generator and critic, each with its optimiser."""

    def __init__(
        self,
        generator: GeneratorParams,
        discriminator: DiscriminatorParams,
        recipe: Recipe,
        device: torch.device,
    ) -> None:
        # channels_last is the layout that convolutions are quickest in, on CPUs and on tensor cores.
        self.generator = UNetGenerator(generator).to(device).to(memory_format=torch.channels_last)
        critic = PatchDiscriminator(discriminator, recipe.critic_norm)
        self.critic = critic.to(device).to(memory_format=torch.channels_last)
        self.generator_optimizer = recipe.optimizer(self.generator.parameters())
        self.critic_optimizer = recipe.optimizer(self.critic.parameters())

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in vars(self).items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            part.load_state_dict(state[name])
        for optimizer in (self.generator_optimizer, self.critic_optimizer):
            for weight, averages in optimizer.state.items():
                for name, average in averages.items():
                    if average.shape == weight.shape:
                        # A fused step walks weights and averages side by side in memory: their layouts must agree.
                        averages[name] = torch.empty_like(weight).copy_(average)

    def set_rate(self, rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate


def train_step(
    players: Players,
    recipe: Recipe,
    objective: Objective,
    real: Tensor,
    generator_turn: bool,
    machine: Machine,
) -> dict[str, Tensor]:
    """One critic step on `real` (B, 3, H, W) and, on its turn, one generator step; returns the pieces of their losses.

    The generator runs once for both: its output before the critic's step is its output after it. Without an adversarial
    term there is nothing to learn for the critic, and it is left alone.
    """
    adversarial = recipe.adversarial_weight > 0
    pieces: dict[str, Tensor] = {}
    if not (adversarial or generator_turn):
        return pieces
    with torch.set_grad_enabled(generator_turn), machine.autocast():
        fake_ab = players.generator(real[:, :1])
        fake = torch.cat([real[:, :1], fake_ab], dim=1)

    if adversarial:
        with machine.autocast():
            loss = objective.critic_loss(players.critic, real, fake.detach())
        _step(players.critic, players.critic_optimizer, loss.total)
        objective.after_critic_step(players.critic)
        pieces |= dict(zip(CRITIC_PIECES, (piece.detach() for piece in loss), strict=True))

    if generator_turn:
        l1 = F.l1_loss(fake_ab, real[:, 1:])
        total = recipe.l1_weight * l1
        if adversarial:
            players.critic.requires_grad_(False)  # it only judges here: no gradients for its weights
            with machine.autocast():
                fooling = objective.generator_loss(players.critic, fake)
            total = total + recipe.adversarial_weight * fooling
            pieces["generator_adversarial"] = fooling.detach()
        _step(players.generator, players.generator_optimizer, total)
        players.critic.requires_grad_(True)
        pieces |= {"generator_loss": total.detach(), "generator_l1": l1.detach()}
    return pieces


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind: the generator in eval mode on the CPU, a row of history and one of timings per epoch."""

    generator: UNetGenerator
    history: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    machine: str  # device and precision


def train(
    photos: Photos,
    params: TrainParams,
    generator: GeneratorParams,
    discriminator: DiscriminatorParams,
    recipe: Recipe,
    seed: int,
    checkpoints: Checkpoints,
    say: Callable[[str], None] = print,
) -> Trained:
    """Trains on `photos` for `params.epochs` and returns the generator; goes on from the newest of `checkpoints`.

    The batches of an epoch are drawn anew from its seed; photos that do not fill the last batch sit the epoch out. Every batch
    is a critic step, every `recipe.n_critic`-th a generator step too, counted over the whole run. Raises UserError for a
    batch larger than the dataset, Diverged for a loss that is not finite, and Interrupted after Ctrl-C or SIGTERM.
    """
    if params.batch_size > len(photos):
        raise UserError(
            f"train.batch_size: got {params.batch_size}, takes at most the {len(photos)} photos to train on"
        )
    machine = Machine.find(params.device, params.precision)
    torch.manual_seed(_seed(seed))
    players = Players(generator, discriminator, recipe, machine.device)
    objective = recipe.objective()
    steps = len(photos) // params.batch_size

    with checkpoints.lock(), stop_signals() as stop_signal:
        place = _resume(checkpoints, players, say)
        saved = time.monotonic()
        for epoch in range(place.epoch, params.epochs):
            rate = recipe.lr * _decay(epoch, params)
            players.set_rate(rate)
            ledger = Ledger(place)
            batches = _batches(photos, params, seed, place, machine.device)
            bar = progress(batches, total=steps - place.batch, desc=f"epoch {epoch + 1}/{params.epochs}")
            for real in ledger.timing_waits(bar):
                torch.manual_seed(_seed(seed, place.step))  # for dropout and the penalty's mix
                generator_turn = (place.step + 1) % recipe.n_critic == 0
                pieces = train_step(players, recipe, objective, real, generator_turn, machine)
                place.step += 1
                place.batch += 1
                place.generator_steps += generator_turn
                ledger.add(pieces)
                signal = stop_signal()
                if signal or time.monotonic() - saved > params.checkpoint_minutes * 60:
                    ledger.settle()
                    _save(checkpoints, place, players)
                    saved = time.monotonic()
                    ledger.start()
                if signal:
                    at = f"step {place.step}, in epoch {epoch + 1} of {params.epochs}"
                    raise Interrupted(f"stopped by {signal} at {at}; `dvc repro` goes on from there")
            say(ledger.close_epoch(rate, params.batch_size))
            _save(checkpoints, place, players)
            saved = time.monotonic()
    return Trained(players.generator.cpu().eval(), place.history, place.timings, str(machine))


def _batches(photos: Photos, params: TrainParams, seed: int, place: Place, device: torch.device) -> Iterator[Tensor]:
    """What is left of the epoch, a batch at a time, read by a thread while the step before it runs."""
    rng = np.random.default_rng((seed, place.epoch))
    order = rng.permutation(len(photos))
    mirrored = rng.random(len(photos)) < (0.5 if params.flip else 0)
    size = params.batch_size

    def load(batch: int) -> Tensor:
        chosen = order[batch * size : (batch + 1) * size]
        real = photos[chosen]
        flip = torch.from_numpy(mirrored[chosen])
        real[flip] = real[flip].flip(-1)
        return real.contiguous(memory_format=torch.channels_last)

    with ThreadPoolExecutor(1) as reader:
        left = range(place.batch, len(photos) // size)
        ahead = reader.submit(load, left[0]) if left else None
        for batch in left:
            assert ahead is not None
            real = ahead.result()
            ahead = reader.submit(load, batch + 1) if batch + 1 in left else None
            yield real.to(device, non_blocking=True)


def _decay(epoch: int, params: TrainParams) -> float:
    """Factor of the learning rate: 1, then down in equal steps that would reach 0 just after the last epoch."""
    return min(1.0, (params.epochs - epoch) / (params.decay_epochs + 1))


def _seed(*key: int) -> int:
    """One seed out of several numbers; adding them up would repeat seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def _save(checkpoints: Checkpoints, place: Place, players: Players) -> None:
    checkpoints.save(place.step, {"place": asdict(place), "players": players.state()})


def _resume(checkpoints: Checkpoints, players: Players, say: Callable[[str], None]) -> Place:
    state = checkpoints.load(warn=say)
    if state is None:
        return Place()
    players.restore(state["players"])
    place = Place(**state["place"])
    say(f"going on from step {place.step}, in epoch {place.epoch + 1}")
    return place
