"""What a training step does: L1 alone, or L1 and an adversary. The loop (loop.py) is the same for both."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.optim import AdamW

from recolor.core.params import Section, expandable
from recolor.models.layers import Generator
from recolor.models.objectives import ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams, PatchDiscriminator
from recolor.runtime.context import RuntimeContext
from recolor.training.progress import CRITIC_TERMS
from recolor.training.state import TrainState

SMALLEST = 1e-12  # a gradient of 0 divides nothing by 0


class PretrainParams(Section, frozen=True):
    """Section `pretrain`."""

    epochs: int = Field(ge=0, le=1_000_000)  # 0: the generator keeps its initial weights
    # none, a model folder whose weights training starts from, or shipped for the model of the package.
    start: Annotated[str, AfterValidator(expandable)]
    lr: float = Field(gt=0, le=1)
    warmup_steps: int = Field(ge=0)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)


@dataclass(frozen=True)
class Pretraining:
    """L1 alone, with AdamW (Loshchilov and Hutter 2019). `name` is for the model's card."""

    params: PretrainParams
    name: ClassVar[str] = "L1"

    def start(self, generator: Generator, context: RuntimeContext, ema: float) -> TrainState:
        """The state before the first step."""
        generator, params = context.place(generator), self.params
        groups = generator.parameter_groups(params.lr)
        optimizer = AdamW(groups, params.lr, weight_decay=params.weight_decay, fused=True)
        return TrainState({"generator": generator}, {"generator": optimizer}, ema)

    def rate_factor(self, step: int, epochs: int, steps: int) -> float:
        """The learning rates' factor: linear up over `warmup_steps`, a quarter of the run at most, then half a cosine to 0."""
        warmup = min(self.params.warmup_steps, epochs * steps // 4)
        if step < warmup:
            return (step + 1) / warmup
        return (1 + math.cos(math.pi * (step - warmup) / max(1, epochs * steps - warmup))) / 2

    def step(self, state: TrainState, real: Tensor, context: RuntimeContext) -> dict[str, Tensor]:
        """Trains on a batch (B, 3, H, W) of normalised Lab and returns the loss terms, scalars without a graph."""
        with context.autocast():
            ab = state.generator(context.layout(real[:, :1]))
        loss = F.l1_loss(ab, real[:, 1:])
        state.generator.zero_grad()
        loss.backward()
        context.distributed.average_gradients(state.generator)
        torch.nn.utils.clip_grad_norm_(state.generator.parameters(), self.params.clip_norm)
        state.optimizers["generator"].step()
        return {"generator_loss": loss.detach(), "generator_l1": loss.detach()}


@dataclass(frozen=True)
class Adversarial:
    """L1 and an objective: every batch is a critic step, every `n_critic`-th batch of the run a generator step too."""

    params: ObjectiveParams
    discriminator: DiscriminatorParams
    decay_epochs: int = 0

    @property
    def name(self) -> str:
        return type(self.params.objective()).__name__

    def start(self, generator: Generator, context: RuntimeContext, ema: float) -> TrainState:
        critic = context.place(PatchDiscriminator(self.discriminator, self.params.critic_norm))
        generator = context.place(generator)
        optimizers = {
            "generator": self.params.optimizer(generator.parameter_groups(self.params.lr)),
            "critic": self.params.optimizer(critic.parameters()),
        }
        return TrainState({"generator": generator, "critic": critic}, optimizers, ema)

    def rate_factor(self, step: int, epochs: int, steps: int) -> float:
        """1, then linearly down over the last `decay_epochs`, to 0 just after the last step."""
        return min(1.0, (epochs * steps - step) / max(1, self.decay_epochs * steps))

    def step(self, state: TrainState, real: Tensor, context: RuntimeContext) -> dict[str, Tensor]:
        """The generator runs once for both steps: the critic's step does not change its output."""
        adversarial = self.params.adversarial_weight > 0
        update_generator = (state.progress.step + 1) % self.params.n_critic == 0
        if not (adversarial or update_generator):
            return {}
        real, lightness = context.layout(real), context.layout(real[:, :1])
        with torch.set_grad_enabled(update_generator), context.autocast():
            fake_ab = state.generator(lightness)
            fake = context.layout(torch.cat([lightness, fake_ab], dim=1))
        loss_terms = self._update_critic(state, real, fake.detach(), context) if adversarial else {}
        if update_generator:
            loss_terms |= self._update_generator(state, real, fake_ab, fake, context)
        return loss_terms

    def _update_critic(
        self, state: TrainState, real: Tensor, fake: Tensor, context: RuntimeContext
    ) -> dict[str, Tensor]:
        objective = self.params.objective()
        with context.autocast():
            loss = objective.critic_loss(state.critic, real, fake)
        state.critic.zero_grad()
        loss.total.backward()
        context.distributed.average_gradients(state.critic)
        state.optimizers["critic"].step()
        objective.after_critic_step(state.critic)
        return dict(zip(CRITIC_TERMS, (term.detach() for term in loss), strict=True))

    def _update_generator(
        self, state: TrainState, real: Tensor, fake_ab: Tensor, fake: Tensor, context: RuntimeContext
    ) -> dict[str, Tensor]:
        """The gradients of both losses meet at the generator's output: one backward pass through the generator."""
        params, loss_terms = self.params, dict[str, Tensor]()
        l1 = F.l1_loss(fake_ab, real[:, 1:])
        total = params.l1_weight * l1
        if params.adversarial_weight > 0:
            state.critic.requires_grad_(False)  # no gradients of its weights
            with context.autocast():
                adversarial = params.objective().generator_loss(state.critic, fake)
            weighted = params.adversarial_weight * adversarial
            average = context.distributed.all_reduce_mean
            gradient, ratio = balanced_gradient(total, weighted, fake_ab, params.balance, average)
            state.critic.requires_grad_(True)
            total = total + weighted
            loss_terms = {"generator_adversarial": adversarial.detach(), "gradient_ratio": ratio}
        else:
            (gradient,) = torch.autograd.grad(total, fake_ab)
        state.generator.zero_grad()
        fake_ab.backward(gradient)
        context.distributed.average_gradients(state.generator)
        state.optimizers["generator"].step()
        return loss_terms | {"generator_loss": total.detach(), "generator_l1": l1.detach()}


Method = Pretraining | Adversarial


def balanced_gradient(
    l1: Tensor, adversarial: Tensor, ab: Tensor, balance: float | None, mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """The gradient of both weighted losses at the generator's output `ab` (B, 2, H, W), and a scalar: the norm of the
    adversarial part as a multiple of L1's.

    With a `balance` the adversarial part is scaled to that multiple, which makes objectives comparable: an adaptive weight as
    in VQGAN (Esser et al. 2021, eq. 7), at the output instead of the last layer, so that `ab.backward(gradient)` is the only
    backward pass through the generator. `mean` averages a tensor over processes that share the batch.
    """
    (of_l1,) = torch.autograd.grad(l1, ab, retain_graph=True)
    (of_adversarial,) = torch.autograd.grad(adversarial, ab, retain_graph=True)
    squares = mean(torch.stack([of_adversarial.square().sum(), of_l1.square().sum()]))
    ratio = (squares[0] / squares[1].clamp(min=SMALLEST**2)).sqrt()
    if balance is None:
        return of_l1 + of_adversarial, ratio
    return of_l1 + of_adversarial * (balance / ratio.clamp(min=SMALLEST)), torch.full_like(ratio, balance)
