"""One loop for every objective: read `train` top to bottom.

A GAN and a WGAN differ by their recipe (objectives.py) alone. A step's randomness comes from the seed and the step's number,
so a checkpoint needs no generator's state, and an interrupted run reaches the very weights of an uninterrupted one.
"""

import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from recolor.core.errors import UserError
from recolor.core.params import Section, Seed
from recolor.core.progress import progress
from recolor.core.signals import stop_signals
from recolor.dataset.augment import AugmentParams
from recolor.dataset.batches import BatchLoader, Photos
from recolor.models.generators import GeneratorParams, build_generator
from recolor.models.layers import Generator
from recolor.models.objectives import Objective, ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams, PatchDiscriminator
from recolor.runtime.compiling import compile_where_it_pays, flops_per_photo
from recolor.runtime.devices import RuntimeContext, RuntimeParams, determinism, retain_heap
from recolor.runtime.distributed import DistributedContext
from recolor.training.checkpoints import Checkpoints
from recolor.training.history import CRITIC_PIECES, Diverged, Ledger, Place

# At an epoch's end the checkpoint waits where the last one is younger: one takes seconds, and so does a small epoch on a GPU.
CHECKPOINT_SECONDS = 30.0


class TrainParams(Section, frozen=True):
    """Section `train`: what both models share."""

    seed: Seed
    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1)
    decay_epochs: int = Field(ge=0)


class Interrupted(UserError):
    """Training was asked to stop, and has saved where it was."""


class Players:
    """Generator and critic, each with its optimiser."""

    def __init__(
        self,
        generator: GeneratorParams,
        discriminator: DiscriminatorParams,
        recipe: ObjectiveParams,
        device: torch.device,
    ) -> None:
        # channels_last is the layout that convolutions are quickest in, on CPUs and on tensor cores.
        self.generator = build_generator(generator).to(device).to(memory_format=torch.channels_last)
        critic = PatchDiscriminator(discriminator, recipe.critic_norm)
        self.critic = critic.to(device).to(memory_format=torch.channels_last)
        self.generator_optimizer = recipe.optimizer(map(_as_it_lies, self.generator.parameters()))
        self.critic_optimizer = recipe.optimizer(map(_as_it_lies, self.critic.parameters()))

    def state(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in vars(self).items()}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in vars(self).items():
            part.load_state_dict(state[name])

    def set_rate(self, rate: float) -> None:
        for optimizer in (self.generator_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = rate


def train_step(
    players: Players,
    recipe: ObjectiveParams,
    objective: Objective,
    real: Tensor,
    generator_turn: bool,
    context: RuntimeContext,
    distributed: DistributedContext,
) -> dict[str, Tensor]:
    """One critic step on `real` (B, 3, H, W) and, on its turn, one generator step; returns the pieces of their losses.

    The generator runs once for both: its output before the critic's step is its output after it. Without an adversarial
    term there is nothing to learn for the critic, and it is left alone.
    """
    adversarial = recipe.adversarial_weight > 0
    pieces: dict[str, Tensor] = {}
    if not (adversarial or generator_turn):
        return pieces
    lightness = real[:, :1].contiguous(memory_format=torch.channels_last)
    with torch.set_grad_enabled(generator_turn), context.autocast():
        fake_ab = players.generator(lightness)
        fake = torch.cat([lightness, fake_ab], dim=1).contiguous(memory_format=torch.channels_last)

    if adversarial:
        with context.autocast():
            loss = objective.critic_loss(players.critic, real, fake.detach())
        _step(players.critic, players.critic_optimizer, loss.total, distributed)
        objective.after_critic_step(players.critic)
        pieces |= dict(zip(CRITIC_PIECES, (piece.detach() for piece in loss), strict=True))

    if generator_turn:
        l1 = F.l1_loss(fake_ab, real[:, 1:])
        total = recipe.l1_weight * l1
        if adversarial:
            players.critic.requires_grad_(False)  # it only judges here: no gradients for its weights
            with context.autocast():
                fooling = objective.generator_loss(players.critic, fake)
            total = total + recipe.adversarial_weight * fooling
            pieces["generator_adversarial"] = fooling.detach()
        _step(players.generator, players.generator_optimizer, total, distributed)
        players.critic.requires_grad_(True)
        pieces |= {"generator_loss": total.detach(), "generator_l1": l1.detach()}
    return pieces


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, distributed: DistributedContext) -> None:
    network.zero_grad()
    loss.backward()
    distributed.average_gradients(network)
    for group in optimizer.param_groups:
        for view, weight in zip(group["params"], network.parameters(), strict=True):
            view.grad = weight.grad if weight.grad is None else _as_it_lies(weight.grad)
    optimizer.step()


def _rehearse(
    players: Players,
    recipe: ObjectiveParams,
    objective: Objective,
    shape: tuple[int, ...],
    context: RuntimeContext,
    distributed: DistributedContext,
) -> None:
    """A step of each kind that the run has, on made-up photos of `shape`, after which the players are what they were."""
    before = deepcopy(players.state())
    photos = torch.zeros(shape, device=context.device).contiguous(memory_format=torch.channels_last)
    try:
        for generator_turn in {recipe.n_critic == 1, True}:
            train_step(players, recipe, objective, photos, generator_turn, context, distributed)
    finally:
        players.critic.requires_grad_(True)  # it is not where a generator's step fails
        players.restore(before)


def _as_it_lies(tensor: Tensor) -> Tensor:
    """A view of a channels_last tensor with its dimensions in the order of memory, for the optimisers: a fused step on a CPU
    walks weights, gradients and averages side by side in memory, and copies each gradient first that is not in this order."""
    tensor = tensor.detach()
    return tensor.movedim(1, -1) if tensor.dim() == 4 else tensor


@dataclass(frozen=True)
class Trained:
    """What a run leaves behind: the generator in eval mode on the CPU, a row of history and one of timings per epoch."""

    generator: Generator
    history: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    machine: str  # device, precision, processes


@retain_heap()
def train(
    photos: Photos,
    params: TrainParams,
    runtime: RuntimeParams,
    augment: AugmentParams,
    generator: GeneratorParams,
    discriminator: DiscriminatorParams,
    recipe: ObjectiveParams,
    checkpoints: Checkpoints,
    say: Callable[[str], None] = print,
) -> Trained:
    """Trains on `photos` for `params.epochs` and returns the generator; goes on from the newest of `checkpoints`.

    The batches of an epoch are drawn anew from its seed; photos that do not fill the last batch sit the epoch out. Every batch
    is a critic step, every `recipe.n_critic`-th a generator step too, counted over the whole run. Several processes
    take their shares of every batch, and the main one logs and saves; the caller holds the lock of `checkpoints`. Raises
    UserError for a batch size that does not fit, Diverged for a loss that is not finite, and Interrupted after
    Ctrl-C or SIGTERM.
    """
    context, distributed, seed = (
        RuntimeContext.find(runtime.device, runtime.precision),
        DistributedContext.find(),
        params.seed,
    )
    steps = _steps_per_epoch(photos, params, distributed)
    say = say if distributed.is_main else _silent
    torch.manual_seed(_seed(seed))
    players = Players(generator, discriminator, recipe, context.device)
    networks = [players.generator, players.critic]
    distributed.sync_batch_norm(networks)
    flops = (
        flops_per_photo(generator, discriminator, recipe, photos.shape[-1])
        * steps
        * params.batch_size
        / distributed.world_size
    )
    objective = recipe.objective()
    shape = (params.batch_size // distributed.world_size, *photos.shape)

    with determinism(runtime.deterministic), stop_signals() as stop_signal:
        compile_where_it_pays(
            networks,
            runtime.compile,
            context.device,
            flops * params.epochs,
            lambda: _rehearse(players, recipe, objective, shape, context, distributed),
            distributed,
            say,
        )
        place = _resume(checkpoints, players, distributed, say)
        feed = BatchLoader(
            *(photos, params.batch_size, augment.flip, seed, context.device, runtime.data_on_device),
            *(distributed.rank, distributed.world_size),
        )
        saved = time.monotonic()
        for epoch in range(place.epoch, params.epochs):
            rate = recipe.lr * _decay(epoch, params)
            players.set_rate(rate)
            ledger = Ledger(place, distributed, checkpoints.newest)
            batches: Iterable[Tensor] = feed.epoch(epoch, place.batch)
            if distributed.is_main:
                batches = progress(batches, steps - place.batch, f"epoch {epoch + 1}/{params.epochs}")
            for real in ledger.timing_waits(batches):
                # For dropout and the penalty's mix. The main process's seed is an only process's: a trailing 0 adds nothing.
                torch.manual_seed(_seed(seed, place.step, distributed.rank))
                generator_turn = (place.step + 1) % recipe.n_critic == 0
                pieces = train_step(players, recipe, objective, real, generator_turn, context, distributed)
                place.step += 1
                place.batch += 1
                place.critic_steps += recipe.adversarial_weight > 0
                place.generator_steps += generator_turn
                ledger.add(pieces)
                signal = stop_signal()
                stop, due = distributed.all_reduce_any(
                    bool(signal), time.monotonic() - saved > runtime.checkpoint_minutes * 60
                )
                if stop or due:
                    ledger.settle()
                    _check_weights(checkpoints, place, players)
                    place.saving += _save(checkpoints, place, players, distributed)
                    saved = time.monotonic()
                    ledger.start()
                if stop:
                    at = f"step {place.step}, in epoch {epoch + 1} of {params.epochs}"
                    by = signal or "a signal to another process"
                    raise Interrupted(f"stopped by {by} at {at}; `dvc repro` goes on from there")
            say(ledger.close_epoch(rate, params.batch_size))
            _check_weights(checkpoints, place, players)
            if place.epoch == params.epochs or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                place.timings[-1]["checkpoints"] += _save(checkpoints, place, players, distributed)
                saved = time.monotonic()
    return Trained(players.generator.cpu().eval(), place.history, place.timings, f"{context}, {distributed}")


def _steps_per_epoch(photos: Photos, params: TrainParams, distributed: DistributedContext) -> int:
    if params.batch_size > len(photos):
        raise UserError(
            f"train.batch_size: got {params.batch_size}, takes at most the {len(photos)} photos to train on"
        )
    if params.batch_size % distributed.world_size:
        raise UserError(
            f"train.batch_size: got {params.batch_size}, takes a multiple of the {distributed.world_size} processes"
        )
    return len(photos) // params.batch_size


def _decay(epoch: int, params: TrainParams) -> float:
    """Factor of the learning rate: 1, then down in equal steps that would reach 0 just after the last epoch."""
    return min(1.0, (params.epochs - epoch) / (params.decay_epochs + 1))


def _seed(*key: int) -> int:
    """One seed out of several numbers; adding them up would repeat seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def _check_weights(checkpoints: Checkpoints, place: Place, players: Players) -> None:
    for name, network in (("generator", players.generator), ("critic", players.critic)):
        if not all(weight.isfinite().all() for weight in network.state_dict().values()):
            raise Diverged(place.step, f"the {name}'s weights are not finite", checkpoints.newest())


def _save(checkpoints: Checkpoints, place: Place, players: Players, distributed: DistributedContext) -> float:
    """Returns the seconds that it took, which the state itself cannot hold: they are those of this process's checkpoints."""
    since = time.monotonic()
    if distributed.is_main:
        checkpoints.save(place.step, {"place": asdict(place), "players": players.state()})
    return time.monotonic() - since


def _resume(
    checkpoints: Checkpoints, players: Players, distributed: DistributedContext, say: Callable[[str], None]
) -> Place:
    fresh = deepcopy(players.state()) if checkpoints.newest() else {}

    def use(state: dict[str, Any]) -> Place:
        try:
            players.restore(state["players"])
            return Place(**state["place"])
        except Exception:
            players.restore(fresh)  # never half of one state and half of another
            raise

    state = distributed.broadcast(checkpoints.load(say, use) if distributed.is_main else None)
    checkpoints.damaged = distributed.broadcast(checkpoints.damaged)
    if state is None:
        return Place()
    place = use(state)
    say(f"going on from step {place.step}, in epoch {place.epoch + 1}")
    return place


def _silent(line: str) -> None:
    """What the other processes would say, the main one says."""
