"""Adversarial objectives: the losses of generator and critic, and their optimisers.

An objective gets the critic itself, not its scores: a gradient penalty has to run the critic on other images, and weight
clipping has to change its weights. Every image is L||ab, float, (B, 3, H, W), in [-1, 1]; every loss is a scalar, averaged
over photos and patches. The L1 term is not here: training adds it once, for every objective.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Adam, Optimizer, RMSprop

from recolor.core.params import Section


class CriticLoss(NamedTuple):
    """What the critic minimises, and the terms of it for history.csv; `estimate` is mean(D(real)) - mean(D(fake))."""

    total: Tensor
    real: Tensor
    fake: Tensor
    penalty: Tensor
    estimate: Tensor


class Objective(ABC):
    """Base of all objectives."""

    @abstractmethod
    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> CriticLoss:
        """Loss that the critic minimises; `fake` carries no graph."""

    @abstractmethod
    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        """Adversarial loss that the generator minimises through `fake`."""

    def after_critic_step(self, critic: nn.Module) -> None:  # noqa: B027
        """Applies the objective's constraint to the critic's weights, after each step of its optimiser."""


@dataclass(frozen=True)
class VanillaGAN(Objective):
    """Non-saturating GAN on logits (Goodfellow et al. 2014, section 3); the critic's loss is halved as in pix2pix (3.3)."""

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> CriticLoss:
        real_scores, fake_scores = critic(real), critic(fake)
        on_real = F.binary_cross_entropy_with_logits(real_scores, torch.ones_like(real_scores))
        on_fake = F.binary_cross_entropy_with_logits(fake_scores, torch.zeros_like(fake_scores))
        estimate = real_scores.mean() - fake_scores.mean()
        return CriticLoss((on_real + on_fake) / 2, on_real, on_fake, torch.zeros_like(on_real), estimate)

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        scores = critic(fake)
        return F.binary_cross_entropy_with_logits(scores, torch.ones_like(scores))


class WassersteinGAN(Objective):
    """Wasserstein GAN (Arjovsky et al. 2017) without the constraint that makes the critic Lipschitz."""

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> CriticLoss:
        on_real, on_fake = critic(real).mean(), critic(fake).mean()
        return CriticLoss(on_fake - on_real, on_real, on_fake, torch.zeros_like(on_real), on_real - on_fake)

    def generator_loss(self, critic: nn.Module, fake: Tensor) -> Tensor:
        return -critic(fake).mean()


@dataclass(frozen=True)
class ClippedWGAN(WassersteinGAN):
    """With weight clipping (algorithm 1), as in the paper."""

    clip: float = 0.01  # of every weight: with batch norm's exempted the critic grows without bound

    @torch.no_grad()
    def after_critic_step(self, critic: nn.Module) -> None:
        for weight in critic.parameters():
            weight.clamp_(-self.clip, self.clip)


@dataclass(frozen=True)
class PenalisedWGAN(WassersteinGAN):
    """With a penalty on each photo's gradient (Gulrajani et al. 2017, eq. 3), so the critic has no batch norm."""

    weight: float = 10.0

    def critic_loss(self, critic: nn.Module, real: Tensor, fake: Tensor) -> CriticLoss:
        loss, penalty = super().critic_loss(critic, real, fake), self.penalty(critic, real, fake)
        return loss._replace(total=loss.total + self.weight * penalty, penalty=penalty)

    def penalty(self, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Mean of (||gradient|| - 1)^2 at one random point between each real photo and its fake."""
        mix = torch.rand(real.shape[0], 1, 1, 1, device=real.device)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        # Summed over photos: without batch norm a score depends on its own photo only, so one backward pass gives each
        # photo's gradient. `forward` passes a compiled critic by, which has no second derivative.
        scores = critic.forward(between).mean(dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
        return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()


class ObjectiveParams(Section, ABC, frozen=True):
    """Base of the adversarial models' sections. `lr` is that of both networks, `n_critic` the critic steps a generator step.

    `balance`: the adversarial gradient at the generator's output as a multiple of L1's; None: adversarial_weight decides.
    """

    lr: float = Field(gt=0, le=1)
    l1_weight: float = Field(ge=0)
    adversarial_weight: float = Field(ge=0)
    balance: Annotated[float, Field(gt=0)] | None
    n_critic: int = Field(ge=1, le=1000)

    @property
    def critic_norm(self) -> bool:
        """Whether the critic may have batch norm."""
        return True

    @classmethod
    def unused(cls, settings: Mapping[str, Any]) -> set[str]:
        """Those of the section's `settings` that another one of them switches off."""
        return set()

    @abstractmethod
    def objective(self) -> Objective: ...

    @abstractmethod
    def optimizer(self, weights: Iterable[Any]) -> Optimizer:
        """A new optimiser for weights or parameter groups; the generator and the critic get one each."""


Beta = Annotated[float, Field(ge=0, lt=1)]


class GANParams(ObjectiveParams, frozen=True):
    """Section `gan`: pix2pix's recipe."""

    n_critic: int = Field(1, ge=1, le=1000)
    betas: tuple[Beta, Beta] = Field(strict=False)  # a list in YAML

    def objective(self) -> Objective:
        return VanillaGAN()

    def optimizer(self, weights: Iterable[Any]) -> Optimizer:
        return Adam(weights, self.lr, self.betas, fused=True)


class WGANParams(ObjectiveParams, frozen=True):
    """Section `wgan`: clipped as in the paper, or with a gradient penalty."""

    constraint: Literal["clip", "gradient_penalty"]
    clip: float = Field(gt=0)
    penalty_weight: float = Field(gt=0)

    @property
    def critic_norm(self) -> bool:
        return self.constraint == "clip"

    @classmethod
    def unused(cls, settings: Mapping[str, Any]) -> set[str]:
        return {"penalty_weight" if settings["constraint"] == "clip" else "clip"}

    def objective(self) -> Objective:
        return ClippedWGAN(self.clip) if self.constraint == "clip" else PenalisedWGAN(self.penalty_weight)

    def optimizer(self, weights: Iterable[Any]) -> Optimizer:
        # Momentum makes a clipped critic unstable (Arjovsky et al. 2017, section 4); with the penalty, Adam without its first
        # moment is used (Gulrajani et al. 2017, algorithm 1).
        if self.constraint == "clip":
            return RMSprop(weights, self.lr)
        return Adam(weights, self.lr, betas=(0.0, 0.9), fused=True)


@dataclass(frozen=True)
class Model:
    """A row of every table and figure. `params`: the class of its section, None for a model without an adversary.

    `guessing`: for a critic that classifies, its loss where it cannot tell real from fake, and how that is written.
    """

    label: str
    color: str  # Okabe and Ito's, which colour-blind readers can tell apart
    params: type[ObjectiveParams] | None = None
    guessing: tuple[float, str] | None = None


PRETRAINED = "l1"  # L1 alone: the weights that the adversarial models start from
MODELS: dict[str, Model] = {
    "grey": Model("grey", "#9a9a9a"),  # ab = 0: doing nothing
    PRETRAINED: Model("L1", "#009e73"),
    "gan": Model("GAN", "#0072b2", GANParams, guessing=(math.log(2), "ln 2")),
    "wgan": Model("WGAN", "#d55e00", WGANParams),
}
ADVERSARIAL = {name: model.params for name, model in MODELS.items() if model.params}
TRAINED = (PRETRAINED, *ADVERSARIAL)
