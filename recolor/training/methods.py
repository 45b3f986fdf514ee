"""What a training step does: L1 alone, or L1 and an adversary. The loop (loop.py) is the same for both."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from recolor.models.layers import Generator
from recolor.models.objectives import ObjectiveParams
from recolor.models.patchgan import DiscriminatorParams, PatchDiscriminator
from recolor.runtime.devices import RuntimeContext
from recolor.training.balance import balanced_gradient
from recolor.training.pretrain import PretrainParams
from recolor.training.state import TrainState

CRITIC_TERMS = ("critic_loss", "critic_real", "critic_fake", "critic_penalty", "critic_estimate")


@dataclass(frozen=True)
class Pretraining:
    """L1 alone. `name` is for the model's card."""

    params: PretrainParams
    name: ClassVar[str] = "L1"

    def start(self, generator: Generator, context: RuntimeContext, ema: float) -> TrainState:
        """The state before the first step."""
        generator = context.place(generator)
        return TrainState({"generator": generator}, {"generator": self.params.optimizer(generator)}, ema)

    def rate_factor(self, step: int, epochs: int, steps: int) -> float:
        """The factor of the learning rates at `step` of the run, which has `epochs` of `steps` each."""
        return self.params.rate_factor(step, epochs * steps)

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
        """The generator runs once for both steps: the critic's step does not change its output.

        Without an adversarial term the critic has nothing to learn and is left alone.
        """
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
